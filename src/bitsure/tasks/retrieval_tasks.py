"""Tasks of finding an answer in a long text, made on the spot: lines of keys and values, pass keys, many documents.

A text consists of units: lines, sentences or documents. The unit that answers stands at `depth` of them, and the choices are
values that stand in the same text once each, so that only finding the right place tells them apart. Each question is drawn by
itself, from the seed, its task, length, depth and number: it is the same whatever else is asked, and the same for every model.

References: Liu et al. 2024 (Lost in the Middle: key–value pairs, many documents); Mohtashami & Jaggi 2023 (the pass key and its
filler); Hsieh et al. 2024 (RULER: several needles of one kind).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from typing import Any, NamedTuple

from bitsure.config.retrieval_settings import RetrievalSettings
from bitsure.tasks.protocols import Document

VERSION = 2  # one more whenever our code would make other questions from the same settings
CHOICES = 4
SHORT_KEYS = 9_000  # words of a text from which on pairs need longer keys to be different
ADJECTIVES = (
    "amber ancient bitter brave bright broken calm clever cold crimson dark distant dry early empty faint fancy "
    "flat gentle golden grand green heavy hidden hollow humble icy ivory large late little lonely loud lucky mild "
    "narrow noble old pale plain proud quiet rapid rough round royal rusty secret sharp silent silver simple slow "
    "small smooth soft steep sweet tall warm wild young"
)
NOUNS = (
    "anchor arrow barn basket bell boat bridge bucket candle castle chair chest clock cloud coat crown desert door "
    "drum farm fence field flag flute forest garden gate glove hammer harbor hill horse island kettle lake lamp "
    "letter lion meadow mirror mountain ocean orchard palace path pillow pond river road rope sail shelf ship stone "
    "table tower train tree valley wagon window"
)
VALUES = (
    "apple bacon beans bread butter cheese chocolate coal coffee copper corn cotton cream eggs fish flour fruit fur "
    "garlic glass gold grain grapes honey ice iron jam leather lemon lime marble meat milk nuts oil olives onion "
    "oranges paper pepper plastic potatoes rice rubber salt sand silk soap soup steel sugar tea tobacco "
    "tomatoes vinegar water wax wheat wine wood wool"
)
FILLER = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PLACES = (
    "in the hills",
    "by the sea",
    "in the north",
    "in the south",
    "near the border",
    "on a plain",
    "at a bend of the river",
)


class Haystack(NamedTuple):
    """A text to search."""

    text: str
    answer: str
    others: list[str]
    """The wrong choices: values of three other units. Like the answer, each stands in the text once."""
    question: str
    """The question, up to where the answer belongs."""


def pairs(rng: random.Random, length: int, depth: float) -> Haystack:
    """Return lines of keys and values, of which one is asked for."""
    adjectives = 1 if length < SHORT_KEYS else 2
    n = max(CHOICES, length // (adjectives + 2))  # a line has a key of an adjective or two and a noun, and a value
    asked = round(depth * (n - 1))
    values, wrong = _values(rng, n, asked)
    words = [*[ADJECTIVES.split()] * adjectives, NOUNS.split()]
    keys = [_key(number, words) for number in rng.sample(range(prod(map(len, words))), n)]
    lines = [f"{key}: {value}" for key, value in zip(keys, values, strict=True)]
    text = "Each line has a name and its word.\n\n" + "\n".join(lines)
    return Haystack(text, values[asked], wrong, f"What is the word of {keys[asked]}? The word of {keys[asked]} is")


def _key(number: int, words: list[list[str]]) -> str:
    """Return the number-th combination of a word of each list."""
    parts = []
    for of_place in words:
        number, chosen = divmod(number, len(of_place))
        parts.append(of_place[chosen])
    return " ".join(parts)


def passkey(rng: random.Random, length: int, depth: float) -> Haystack:
    """Return sentences that say nothing, between which four places' pass keys are told, one of which is asked for."""
    n = max(CHOICES, length // 4)  # a sentence of the filler has about four words
    units = [FILLER[i % len(FILLER)] for i in range(n)]
    asked = round(depth * (n - 1))
    places = [asked, *rng.sample([i for i in range(n) if i != asked], CHOICES - 1)]
    keys = [str(number) for number in rng.sample(range(10_000, 100_000), CHOICES)]
    names = rng.sample(NOUNS.split(), CHOICES)
    for place, name, key in zip(places, names, keys, strict=True):
        units[place] = f"The pass key of the {name} is {key}. Remember it."
    text = "Pass keys are hidden in this text.\n\n" + " ".join(units)
    question = f"What is the pass key of the {names[0]}? The pass key of the {names[0]} is"
    return Haystack(text, keys[0], keys[1:], question)


def documents(rng: random.Random, length: int, depth: float) -> Haystack:
    """Return numbered documents about towns, of which one says what is asked."""
    n = max(CHOICES, length // 25)
    asked = round(depth * (n - 1))
    (values, wrong), towns = _values(rng, n, asked), _towns(rng, n)
    units = [
        f"Document {i + 1} (Title: {town}) {town} lies {rng.choice(PLACES)}. It has {rng.randint(2, 99)} thousand people, "
        f"and its market is held on {rng.choice(DAYS)}. {town} is known for its {value}."
        for i, (town, value) in enumerate(zip(towns, values, strict=True))
    ]
    text = "Answer the question by these documents.\n\n" + "\n".join(units)
    return Haystack(text, values[asked], wrong, f"What is {towns[asked]} known for? {towns[asked]} is known for its")


def _values(rng: random.Random, n: int, asked: int) -> tuple[list[str], list[str]]:
    """Return the values of n units, the asked one's among them, and the wrong choices.

    All choices stand there once: how often a value stands in a text says nothing about which is right.
    """
    answer, *others = rng.sample(VALUES.split(), len(VALUES.split()))
    wrong, repeated = others[: CHOICES - 1], others[CHOICES - 1 :]
    values = wrong + rng.choices(repeated, k=n - CHOICES)
    rng.shuffle(values)
    return [*values[:asked], answer, *values[asked:]], wrong


def _towns(rng: random.Random, n: int) -> list[str]:
    """Return n different made-up names."""
    names: dict[str, None] = {}
    while len(names) < n:
        syllables = (rng.choice("bdfghklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
        names[("".join(syllables) + rng.choice("lmnrst")).capitalize()] = None
    return list(names)


KINDS: Mapping[str, Callable[[random.Random, int, float], Haystack]] = {
    "retrieval_pairs": pairs,
    "retrieval_passkey": passkey,
    "retrieval_documents": documents,
}


def retrieval_documents(name: str, settings: RetrievalSettings, seed: int) -> list[Document]:
    """Return the questions of a task of KINDS; every length and depth has one before any has its second.

    Args:
        name: The task.
        settings: The lengths, depths and number of questions.
        seed: Draws them.
    """
    questions: list[Document] = []
    for number, length, depth in product(range(settings.questions), settings.lengths, settings.depths):
        rng = random.Random(f"{seed} {name} {length} {depth:g} {number}")
        haystack = KINDS[name](rng, length, depth)
        choices = [haystack.answer, *haystack.others]
        rng.shuffle(choices)
        question = {"text": haystack.text, "question": haystack.question, "choices": choices}
        questions.append(question | {"label": choices.index(haystack.answer), "length": length, "depth": depth})
    return questions


def retrieval_task(name: str, settings: RetrievalSettings, seed: int) -> dict[str, Any]:
    """Return a task of KINDS as the harness reads it from YAML."""

    def data_set(**_: object) -> dict[str, object]:  # the harness gives the settings' metadata
        from datasets import Dataset

        return {"test": Dataset.from_list(retrieval_documents(name, settings, seed))}

    return {
        "task": name,
        "custom_dataset": data_set,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}\n\n{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
        "metadata": {"version": VERSION},
    }
