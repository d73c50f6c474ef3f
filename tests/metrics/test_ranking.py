from __future__ import annotations

import numpy as np
import pytest

from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.ranking import Aurc, Auroc, risk_coverage
from tests.builders.answers import binary_questions, drawn_questions, statistic_value
from tests.builders.marks import library

STARTS = np.arange(301) * 5  # of 300 questions with five choices each


def test_auroc_by_hand():
    questions = binary_questions([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])  # right before wrong in 3 of 4 pairs
    assert statistic_value(Auroc(), questions) == pytest.approx(0.75)
    assert statistic_value(Auroc(), binary_questions([0.7, 0.7], [1, 0])) == pytest.approx(0.5)
    assert np.isnan(statistic_value(Auroc(), binary_questions([0.7, 0.8], [1, 1])))


def test_auroc_is_scikit_learns_with_ties():
    metrics = library("sklearn.metrics")
    rng = np.random.default_rng(0)
    confidence = rng.integers(50, 100, 500) / 100
    correct = rng.random(500) < confidence
    questions = binary_questions(confidence, correct)
    assert statistic_value(Auroc(), questions) == pytest.approx(metrics.roc_auc_score(correct, questions.confidence))


def test_aurc_by_hand():
    questions = binary_questions([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])  # risks 0, ½, ⅓, ½
    assert statistic_value(Aurc(), questions) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    best = (0 + 0 + 1 / 3 + 2 / 4) / 4  # both right answers first
    assert statistic_value(Aurc(excess=True), questions) == pytest.approx((4 / 3) / 4 - best)
    assert statistic_value(Aurc(excess=True), binary_questions([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0])) == 0
    coverage, risk = risk_coverage(questions)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1] and risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


def test_the_order_of_equally_sure_questions_does_not_matter():
    first, second = binary_questions([0.7] * 4 + [0.9], [1, 1, 0, 0, 1]), binary_questions([0.7] * 4 + [0.9], [0, 1, 0, 1, 1])
    assert statistic_value(Aurc(), first) == pytest.approx(statistic_value(Aurc(), second))


@pytest.mark.parametrize("statistic", [Auroc(), Aurc(), Aurc(excess=True)])
def test_influence_gives_the_bootstraps_standard_error(statistic):
    rng, questions = np.random.default_rng(0), drawn_questions(2000, power=2)
    resampled = []
    for _ in range(300):
        chosen = rng.integers(0, 2000, 2000)
        resampled.append(statistic.value(binary_questions(questions.confidence[chosen], questions.correct[chosen])))
    _, influence = statistic.value_and_influence(questions)
    assert np.sqrt((influence**2).sum()) / 2000 == pytest.approx(np.std(resampled), rel=0.12)
    assert influence.mean() == pytest.approx(0, abs=1e-6)


def test_rounding_does_not_rank_equally_sure_questions():
    """The same log-probabilities in another order give confidences that differ in the last digit."""
    rng = np.random.default_rng(0)
    answered = [rng.normal(size=5) * 3 for _ in range(6)]
    scores = np.stack([rng.permutation(answered[i % 6]) for i in range(300)])
    gold = np.where(rng.random(300) < 0.6, scores.argmax(1), rng.integers(0, 5, 300))
    is_gold = gold[:, None] == np.arange(5)
    given, canonical = np.arange(5)[None], np.argsort(scores, axis=1)
    both = [
        QuestionSet(np.take_along_axis(scores, order, 1).ravel(), np.take_along_axis(is_gold, order, 1).ravel(), STARTS)
        for order in (np.repeat(given, 300, 0), canonical)
    ]
    assert len(np.unique(both[0].confidence)) > len(np.unique(both[1].confidence)) == 6
    for statistic in (Auroc(), Aurc(), Aurc(excess=True)):
        assert statistic.value(both[0]) == pytest.approx(statistic.value(both[1]), abs=1e-12)
    fold = np.arange(300) % 5
    one, other = (QuestionPairs(side, side, fold) for side in both)
    assert (one.certainty == other.certainty).all() and (one.stratum == other.stratum).all()
    assert (one.deferred == other.deferred).all()


@pytest.mark.parametrize("statistic", [Auroc(), Aurc(), Aurc(excess=True)])
def test_the_order_of_rows_matters_neither_to_the_value_nor_to_the_influence(statistic):
    rng = np.random.default_rng(1)
    confidence, correct = rng.integers(50, 60, 400) / 100, rng.random(400) < 0.6
    value, influence = statistic.value_and_influence(binary_questions(confidence, correct))
    for _ in range(5):
        order = rng.permutation(400)
        other, others_influence = statistic.value_and_influence(binary_questions(confidence[order], correct[order]))
        assert other == value
        assert others_influence == pytest.approx(influence[order], abs=1e-10)


def test_the_influence_of_tied_questions_gives_the_bootstraps_standard_error():
    rng = np.random.default_rng(0)
    confidence, correct = rng.integers(5, 8, 2000) / 10, rng.random(2000) < 0.7
    resampled = []
    for _ in range(300):
        chosen = rng.integers(0, 2000, 2000)
        resampled.append(Aurc().value(binary_questions(confidence[chosen], correct[chosen])))
    _, influence = Aurc().value_and_influence(binary_questions(confidence, correct))
    assert np.sqrt((influence**2).sum()) / 2000 == pytest.approx(np.std(resampled), rel=0.12)
