from __future__ import annotations

import numpy as np
import pytest

from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.estimation import standard_error
from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.temperature import FOLDS, assign_folds, inverse_temperatures, temperature_influence


def answers(n=4000, temperature=1.0, seed=0, choices=4) -> QuestionSet:
    """Right choices drawn from softmax(z), scores z / temperature: at that temperature the model is calibrated."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, choices))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    gold = np.array([rng.multinomial(1, row) for row in p], dtype=bool)
    return QuestionSet(-10 + (z / temperature).ravel(), gold.ravel(), np.arange(n + 1) * choices)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature):
    asked = answers(temperature=1 / temperature)
    found = inverse_temperatures(asked, assign_folds(len(asked), None, 0))
    assert 1 / found == pytest.approx(temperature, rel=0.1)


def test_the_temperature_of_a_fold_does_not_depend_on_its_own_questions():
    asked = answers(200)
    fold = assign_folds(200, None, 0)
    before = inverse_temperatures(asked, fold)
    gold = asked.gold.reshape(-1, 4).copy()
    gold[fold == 0] = gold[fold == 0][:, ::-1]
    changed = inverse_temperatures(QuestionSet(asked.scores, gold.ravel(), asked.starts), fold)
    assert changed[fold == 0] == pytest.approx(before[fold == 0], rel=1e-6)  # the first guess is everyone's
    assert np.abs(changed[fold == 1] / before[fold == 1] - 1).min() > 0.01


@pytest.mark.parametrize("size", [1, 5])
def test_the_error_of_a_temperature_is_that_of_fitting_it_to_resampled_questions(size):
    n = 1500
    clusters = np.arange(n) // size
    asked, fold = answers(n, temperature=2.0), assign_folds(n, clusters, 0)
    if size > 1:  # the same question five times
        first = clusters * size
        asked = QuestionSet(asked.scores.reshape(n, 4)[first].ravel(), asked.gold.reshape(n, 4)[first].ravel(), asked.starts)
    influence = temperature_influence(asked, fold, inverse_temperatures(asked, fold))
    drawn = []
    for weights in resample_weights(n, 150, 0, clusters).T:
        index = np.repeat(np.arange(n), weights.astype(int))
        again = QuestionSet(asked.scores.reshape(n, 4)[index].ravel(), asked.gold.reshape(n, 4)[index].ravel(), asked.starts)
        drawn.append((1 / inverse_temperatures(again, fold[index])).mean())
    assert standard_error(influence, clusters) == pytest.approx(np.std(drawn), rel=0.15)
    assert influence.mean() == pytest.approx(0, abs=5e-3)


def test_a_temperature_that_was_not_fitted_has_no_error():
    asked = answers(20)
    assert np.isnan(temperature_influence(asked, np.zeros(20, dtype=int), np.ones(20))).all()
    sure = QuestionSet(
        np.tile([0.0, -5.0], 20), np.tile([True, False], 20), np.arange(21) * 2
    )  # always right: no T is too small
    fold = np.arange(20) % 5
    assert np.isnan(temperature_influence(sure, fold, inverse_temperatures(sure, fold))).all()


def test_a_cluster_lies_in_one_fold():
    clusters = np.arange(100) // 7
    fold = assign_folds(100, clusters, 0)
    assert all(len(set(fold[clusters == c])) == 1 for c in set(clusters)) and len(set(fold)) == FOLDS


def test_several_right_choices_can_be_fitted_too():
    asked = answers(500)
    gold = asked.gold.reshape(-1, 4).copy()
    gold[:, 0] = True
    gold[:, 3] = False
    both = QuestionSet(asked.scores, gold.ravel(), asked.starts)
    best = inverse_temperatures(both, np.arange(500) % 2)
    tried = np.geomspace(0.2, 5, 200)
    nll = [both.at_temperature(np.full(500, beta)).nll[np.arange(500) % 2 == 1].mean() for beta in tried]
    assert best[0] == pytest.approx(tried[int(np.argmin(nll))], rel=0.03)


def test_pairs_by_hand():
    full = QuestionSet(np.log([0.8, 0.2, 0.6, 0.4]), np.array([True, False, True, False]), np.array([0, 2, 4]))
    quant = QuestionSet(np.log([0.5, 0.5, 0.3, 0.7]), np.array([True, False, True, False]), np.array([0, 2, 4]))
    pairs = QuestionPairs(full, quant, np.array([0, 1]))
    assert pairs.flipped.tolist() == [0, 1] and pairs.lost.tolist() == [0, 1] and pairs.won.tolist() == [0, 0]
    assert pairs.kl_divergence[0] == pytest.approx(0.8 * np.log(0.8 / 0.5) + 0.2 * np.log(0.2 / 0.5))
    middle = np.array([0.65, 0.35])
    js = (0.8 * np.log2(0.8 / middle[0]) + 0.2 * np.log2(0.2 / middle[1])) / 2
    js += (0.5 * np.log2(0.5 / middle[0]) + 0.5 * np.log2(0.5 / middle[1])) / 2
    assert pairs.jensen_shannon[0] == pytest.approx(js)
    assert pairs.log_odds_change == pytest.approx([np.log(1) - np.log(4), np.log(3 / 7) - np.log(6 / 4)])
    assert pairs.certainty.tolist() == [0.75, 0.25] and pairs.stratum.tolist() == [3, 1]


def test_divergences_keep_to_their_ranges_where_choices_are_opposite():
    sure = QuestionSet(np.array([0.0, -800.0]), np.array([True, False]), np.array([0, 2]))
    other = QuestionSet(np.array([-800.0, 0.0]), np.array([True, False]), np.array([0, 2]))
    pairs = QuestionPairs(sure, other, np.zeros(1, dtype=int))
    assert pairs.jensen_shannon == pytest.approx([1]) and pairs.kl_divergence == pytest.approx([800])
    assert np.isfinite(pairs.log_odds_change).all()
