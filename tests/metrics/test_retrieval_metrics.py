"""Numbers by length and depth: over the questions of each place alone, with intervals, and paired in a comparison."""

from __future__ import annotations

import dataclasses

import pytest

from bitsure.comparison import compare
from bitsure.metrics import measure
from bitsure.metrics.retrieval_metrics import Place, place_in_name
from tests.builders.records import record
from tests.builders.settings import METRIC

SETTINGS = dataclasses.replace(METRIC, resamples=100)
PLACES = [(128, 0.0), (128, 0.5), (512, 0.0), (512, 0.5)]


def placed(right_at_end):
    """40 questions, 10 a place; those of 512 words and depth 50% are right as often as is said."""
    rows = []
    for i in range(40):
        length, depth = PLACES[i % 4]
        is_right = (length, depth) != (512, 0.5) or i // 4 < right_at_end
        rows.append(record([-1, -2] if is_right else [-2, -1], doc_id=i, length=length, depth=depth))
    return rows


def test_each_place_has_the_accuracy_and_probability_of_its_own_questions():
    values = measure(placed(4), SETTINGS)["t"]
    by_place = {parts: values[name] for name in values if (parts := place_in_name(name))}
    accuracy = {place: number.value for (metric, place), number in by_place.items() if metric == "accuracy"}
    assert accuracy == {Place(128, 0): 1, Place(128, 50): 1, Place(512, 0): 1, Place(512, 50): 0.4}
    assert {number.n for number in by_place.values()} == {10} and len(by_place) == 8
    hard = values["retrieval/accuracy_length_512_depth_50"]
    assert hard.ci_low < 0.4 < hard.ci_high
    mean = sum(number.value * 10 for (metric, _), number in by_place.items() if metric == "true_label_prob") / 40
    assert mean == pytest.approx(values["true_label_prob"].value)


def test_the_places_of_two_runs_are_compared_on_the_same_questions_without_a_test():
    values = compare(placed(10), placed(4), SETTINGS)["t"]
    loss = values["retrieval/accuracy_length_512_depth_50"]
    assert (loss.value, loss.baseline, loss.quantized, loss.n, loss.p_value) == (pytest.approx(-0.6), 1, 0.4, 10, None)
    assert values["retrieval/true_label_prob_length_128_depth_0"].value == 0
    untouched = values["retrieval/accuracy_length_128_depth_0"]
    assert untouched.ci_low < -0.1 and untouched.ci_high > 0.1 and "Newcombe" in untouched.interval


def test_other_questions_have_no_places():
    rows = [record([-1, -2], doc_id=i) for i in range(3)]
    assert not any(map(place_in_name, measure(rows, SETTINGS)["t"]))
    assert place_in_name("accuracy") is None


def test_a_question_without_a_place_among_others_is_at_none():
    rows = [dataclasses.replace(row, length=None) if row.doc_id == 0 else row for row in placed(4)]
    values = measure(rows, SETTINGS)["t"]
    assert values["retrieval/accuracy_length_128_depth_0"].n == 9 and values["retrieval/accuracy_length_512_depth_0"].n == 10
