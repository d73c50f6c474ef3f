"""What is changed in a question is stated exactly, and is the same each time."""

from __future__ import annotations

import random

import pytest

from bitsure.tasks.perturbations import IRRELEVANT, with_distractor, with_other_order, with_typos

QUESTION = "Question: Which planet shines reddish in the evening sky?\nAnswer:"
LISTED = "Q: A. is first?\nA. Mars\nB. Venus\nC. Saturn\nAnswer:"


def drawn(seed: int = 0) -> random.Random:
    return random.Random(seed)


def test_typing_errors_are_in_inner_letters_of_long_words_of_the_last_paragraph_alone():
    text = f"Question: Who was president?\nAnswer: Lincoln\n\n{QUESTION}"
    mistyped = [with_typos(text, drawn(seed)) for seed in range(50)]
    assert len(set(mistyped)) > 20 and text not in mistyped
    assert mistyped[3] == with_typos(text, drawn(3))
    for other in mistyped:
        head, _, tail = other.partition("\n\n")
        assert head == text.partition("\n\n")[0]
        words = list(zip(QUESTION.split(), tail.split(), strict=True))
        changed = [(before, after) for before, after in words if before != after]
        assert changed and all(before not in ("Question:", "the", "in", "sky?", "Answer:") for before, _ in changed)
        assert all(a[0] == b[0] and a[-1] == b[-1] and abs(len(a) - len(b)) <= 1 for a, b in changed)


@pytest.mark.parametrize("text", ["", "Is it so?", "Question:\n\nAnswer:"])
def test_a_text_without_a_long_word_stays_as_it_is(text):
    assert with_typos(text, drawn()) == text


def test_the_irrelevant_sentence_stands_on_a_line_before_the_question():
    text = with_distractor(f"An example.\n\n{QUESTION}", drawn())
    before, sentence, *after = text.split("\n")[0], text.split("\n")[2], *text.split("\n")[3:]
    assert (before, "\n".join(after)) == ("An example.", QUESTION) and sentence in IRRELEVANT


@pytest.mark.parametrize(
    "listed",
    [LISTED, LISTED.replace("A. M", "(A) M").replace("B. ", "(B) ").replace("C. ", "(C) "), LISTED.replace("A. M", "1: M")
     .replace("B. ", "2: ").replace("C. ", "3: ")],
)  # fmt: skip
def test_options_stand_behind_the_same_labels_in_another_order(listed):
    for seed in range(20):
        other = with_other_order(listed, 3, drawn(seed))
        lines, before = other.text.split("\n"), listed.split("\n")
        assert [lines[0], lines[4]] == [before[0], before[4]] and lines != before
        assert [line[:2] for line in lines[1:4]] == [line[:2] for line in before[1:4]]
        for option, place in zip(("Mars", "Venus", "Saturn"), other.places, strict=True):
            assert lines[1 + place].endswith(option)


@pytest.mark.parametrize(
    "option",
    [
        "Both A and B",
        "Neither (A) nor (B)",
        "B only",
        "A, B",
        "Option B",
        "All of the above",
        "none of these.",
        "Both",
        "A和B",
        "以上都是",
    ],
)
def test_options_that_name_others_stay_in_their_places(option):
    assert with_other_order(LISTED.replace("Saturn", option), 3, drawn()) is None


@pytest.mark.parametrize("option", ["A star", "Vitamin D", "Both moons of Mars", "an answer", "I and II", "Bands"])
def test_options_that_name_no_other_are_moved(option):
    assert with_other_order(LISTED.replace("Saturn", option), 3, drawn()) is not None


@pytest.mark.parametrize(("text", "n"), [(QUESTION, 3), (LISTED, 4), ("A. one\n\nB. two", 2), ("A. one\nC. two", 2)])
def test_a_prompt_that_lists_no_options_has_no_order(text, n):
    assert with_other_order(text, n, drawn()) is None
