"""Golden values by hand: p = (½, ¼, ¼) and p = (0.8, 0.2)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsure.metrics.questions import question_set
from tests.builders.records import record

HALF = [math.log(8), math.log(4), math.log(4)]  # any constant may be added to log-probabilities
EIGHT = [math.log(0.8) - 30, math.log(0.2) - 30]


def test_golden_values_of_one_question():
    asked = question_set([record(HALF, gold=1)])
    assert asked.confidence == pytest.approx([0.5])
    assert asked.prediction.tolist() == [0] and asked.correct.tolist() == [0]
    assert asked.true_label_prob == pytest.approx([0.25])
    assert asked.entropy == pytest.approx([1.5 * math.log(2)])
    assert asked.nll == pytest.approx([math.log(4)])
    assert asked.brier_score == pytest.approx([0.25 + 0.5625 + 0.0625])


def test_questions_with_different_numbers_of_choices_stand_side_by_side():
    asked = question_set([record(HALF, gold=0), record(EIGHT, gold=0)])
    assert asked.confidence == pytest.approx([0.5, 0.8])
    assert asked.correct.tolist() == [1, 1]
    assert asked.brier_score == pytest.approx([0.25 + 2 * 0.0625, 2 * 0.04])


def test_several_right_choices_add_up_and_have_their_own_brier_score():
    asked = question_set([record(HALF, gold=[1, 2])])
    assert asked.several_gold and asked.true_label_prob == pytest.approx([0.5])
    assert asked.nll == pytest.approx([math.log(2)])
    assert asked.brier_score == pytest.approx([0.25])
    assert asked.correct.tolist() == [0]


def test_certainty_has_no_entropy_and_hopelessness_a_finite_nll():
    asked = question_set([record([0, -2000], gold=1)])
    assert asked.entropy.tolist() == [0] and asked.nll.tolist() == [2000] and asked.brier_score.tolist() == [2]


@given(st.lists(st.floats(-500, 0), min_size=2, max_size=6), st.data())
def test_ranges_and_invariance(logprobs, data):
    gold = data.draw(st.integers(0, len(logprobs) - 1))
    asked = question_set([record(logprobs, gold=gold)])
    shifted = question_set([record([z - 7 for z in logprobs], gold=gold)])
    k = len(logprobs)
    assert 1 / k - 1e-12 <= asked.confidence[0] <= 1
    assert 0 <= asked.true_label_prob[0] <= 1
    assert -1e-12 <= asked.entropy[0] <= math.log(k) + 1e-12
    assert 0 <= asked.brier_score[0] <= 2 and asked.nll[0] >= 0
    assert asked.true_label_prob[0] <= asked.confidence[0] + 1e-12
    assert shifted.true_label_prob == pytest.approx(asked.true_label_prob, abs=1e-9)


@given(st.lists(st.floats(-1e5, 0), min_size=2, max_size=6))
def test_probabilities_add_up_to_one(logprobs):
    p = question_set([record(logprobs)]).p
    assert p.sum() == pytest.approx(1) and np.isfinite(p).all()
