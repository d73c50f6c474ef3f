"""What a verdict says of two runs whose records are equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitsure.comparison import compare, judge
from bitsure.comparison.verdict_words import outcome
from bitsure.results.run_files import QuestionCount
from tests.builders.answers import two_choices
from tests.builders.settings import MARGINS, METRIC

EQUAL = "ll {n} records are equal: log-probabilities and answers are the same in both runs."


def run(n, above_guessing=True):
    """Questions of which three in four are answered rightly, or all by the first choice."""
    right = [i % 4 > 0 if above_guessing else i % 2 == 0 for i in range(n)]
    return [two_choices(0.7 if right[i] == (i % 2 == 0) else 0.3, i % 2, i) for i in range(n)]


def verdict(before, after, **fields):
    return judge(compare(before, after, METRIC), MARGINS, METRIC, baseline="the first run", **fields)


def test_where_no_record_differs_the_verdict_says_so_and_what_that_leaves_open():
    """Few questions without a flip settle no margin for other questions, of which the verdict is."""
    rows = run(150)
    judged = verdict(rows, rows, questions={"t": QuestionCount(asked=150, available=160)})
    assert judged.verdict == judged.tasks["t"].verdict == "undecided" and judged.unchanged
    assert judged.badge == outcome(judged) == "nothing changed"
    assert judged.sentence == "A" + EQUAL.format(n=150)
    assert judged.settles == (
        "Other questions may differ: if nothing is lost, about 360 more questions would settle it (80% power), but the tasks "
        "have only 10 more; these 150 settle a margin of 0.019 for accuracy."
    )


def test_enough_equal_records_are_shipped():
    rows = run(400)
    judged = verdict(rows, rows)
    assert judged.verdict == "non-inferior" and judged.badge == "nothing changed"
    assert judged.sentence == "You may ship it: a" + EQUAL.format(n=400) and judged.settles == ""


def test_equal_records_do_not_hide_why_nothing_is_decided():
    few, guessing = run(20), run(150, above_guessing=False)
    judged = verdict(few, few)
    assert judged.verdict == "undecided" and judged.sentence == "A" + EQUAL.format(n=20)
    assert judged.settles == (
        "Other questions may differ: a verdict needs at least 30 questions, or clusters of them, in each task."
    )
    judged = verdict(guessing, guessing)
    assert judged.verdict == "not judged" and judged.sentence == "A" + EQUAL.format(n=150)
    assert judged.settles.startswith("Not judged: the first run is not clearly above guessing on t. Another task or text, ")


@pytest.mark.parametrize("part", [slice(None), slice(1, None)])
def test_one_record_that_differs_in_the_last_bit_is_a_change(part):
    """Whether all questions are in both runs or not."""
    before = run(150)
    first, second = before[7].choice_logprobs
    after = [*before[:7], replace(before[7], choice_logprobs=[np.nextafter(first, -1), second]), *before[8:]]
    compared = compare(before, after[part], METRIC)["t"]
    assert (compared["questions_joined"].value, compared["questions_equal"].value) == (len(after[part]), len(after[part]) - 1)
    judged = verdict(before, after[part])
    assert not judged.unchanged and judged.badge == "undecided" and judged.sentence.startswith("Do not ship it yet: accuracy ")
    assert verdict(before, before[part]).unchanged
