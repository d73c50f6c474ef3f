"""The same question in other words: with typing errors, with its options in another order, after an irrelevant sentence."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

TYPO_SHARE = 0.1  # of the words that may get one
WORD = re.compile(r"\b[^\W\d_]{4,}\b(?!:)")  # a word before a colon is one of the prompt's, such as `Question:`
OPTION = re.compile(r"^[ \t]*\(?(?P<label>[A-Z]|[1-9])[.):][ \t]*(?P<text>\S.*?)[ \t]*$", re.MULTILINE)
LABELS = ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "123456789")
# Words of an option that names other options, by their places or all of them: in another order it would say something else.
NAMES_OPTIONS = re.compile(
    r"\b(above|below|preceding|previous|foregoing)\b|^(all|none|both|neither|either)(\W*$| (of|are|is)\b)|以上|以下|上述",
    re.IGNORECASE,
)
IRRELEVANT = (
    "The library on the corner closes at six in the evening.",
    "My neighbour painted her fence green last summer.",
    "The train to the coast was twelve minutes late.",
    "Someone left a blue umbrella in the hall.",
    "The bakery sells out of rye bread before noon.",
    "A letter arrived on Tuesday with no stamp on it.",
    "The meeting was moved to the room with the large window.",
    "He keeps his old bicycle in the shed behind the house.",
    "The concert was cancelled because the singer had a cold.",
    "They bought three chairs and a small round table.",
    "The phone on the desk rang twice and then stopped.",
    "Her cousin collects postcards of lighthouses.",
)


def with_typos(text: str, rng: random.Random) -> str:
    """Return a question with a typing error in about a tenth of its words of four or more letters, and in one at least.

    Two neighbouring inner letters change places, or an inner letter is left out or doubled, with equal chances. Two equal
    letters cannot change places: one of them is left out. A text without such a word is returned as it is.
    """
    words = list(WORD.finditer(text, _start_of_question(text)))
    chosen = [word for word in words if rng.random() < TYPO_SHARE] or ([rng.choice(words)] if words else [])
    for word in reversed(chosen):
        text = text[: word.start()] + _mistyped(word[0], rng) + text[word.end() :]
    return text


def _start_of_question(text: str) -> int:
    """Return where the last paragraph with a word begins; before it stand passages, or examples of the prompt's own."""
    starts = [0, *(gap.end() for gap in re.finditer(r"\n\n", text))]
    return next((start for start in reversed(starts) if WORD.search(text, start)), 0)


def _mistyped(word: str, rng: random.Random) -> str:
    kind, i = rng.choice(("swap", "leave out", "double")), rng.randrange(1, len(word) - 2)
    if kind == "swap" and word[i] != word[i + 1]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word[: i + 1] + word[i:] if kind == "double" else word[:i] + word[i + 1 :]


def with_distractor(text: str, rng: random.Random) -> str:
    """Return a question after a line with one of the sentences of IRRELEVANT."""
    start = _start_of_question(text)
    return f"{text[:start]}{rng.choice(IRRELEVANT)}\n{text[start:]}"


@dataclass(frozen=True)
class ReorderedOptions:
    """A prompt whose options were put into another order.

    Attributes:
        text: The prompt.
        labels: The labels in the prompt's order.
        places: For each option, in the order that it had, which label it stands behind now.
    """

    text: str
    labels: tuple[str, ...]
    places: tuple[int, ...]


def with_other_order(text: str, n: int, rng: random.Random) -> ReorderedOptions | None:
    """Return a prompt with its options in another order behind the same labels.

    It is None if the prompt does not list them, and if an option names others, such as `Both A and B` or `All of the above`.

    Args:
        text: The prompt.
        n: How many options there are, 2 or more.
        rng: Draws the order, which is never the one that they had.
    """
    listed = listed_options(text, n)
    labels = tuple(line["label"] for line in listed)
    if not listed or any(_names_options(line["text"], labels) for line in listed):
        return None
    order = list(range(n))  # the option that stands behind each label
    while order == sorted(order):
        rng.shuffle(order)
    for line, option in zip(reversed(listed), reversed(order), strict=True):
        text = text[: line.start("text")] + listed[option]["text"] + text[line.end("text") :]
    return ReorderedOptions(text, labels, tuple(order.index(option) for option in range(n)))


def listed_options(text: str, n: int) -> list[re.Match[str]]:
    """Return the options that a prompt lists, each with its `label` and `text`; none if it does not list `n`.

    Options are listed if the prompt has `n` lines one below the other that begin with the labels A, B, … or 1, 2, …, each in
    brackets or before a full stop, a bracket or a colon. Of several such lists the last one is meant.
    """
    lines = list(OPTION.finditer(text))
    for first in range(len(lines) - n, -1, -1):
        listed = lines[first : first + n]
        adjacent = all(text[above.end() : below.start()] == "\n" for above, below in pairwise(listed))
        if adjacent and any("".join(line["label"] for line in listed) == all_labels[:n] for all_labels in LABELS):
            return listed
    return []


def _names_options(option: str, labels: Sequence[str]) -> bool:
    """Return whether an option names others: by words, or by a label in a list of labels or next to a word such as `only`."""
    label = rf"(?<![A-Za-z0-9])\(?[{''.join(labels)}]\)?(?![A-Za-z0-9])"
    before = r"(?i:\b(both|neither|either|only|options?|answers?|choices?|except|and|or|nor|not|but)\b|[&,/、和与及或])"
    after = r"([&,/、和与及或]|(and|or|nor|only|is|are)\b)"
    return bool(NAMES_OPTIONS.search(option) or re.search(rf"{before}\s*{label}|{label}\s*{after}", option))
