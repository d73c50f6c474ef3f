"""Conformal answer sets: their thresholds by hand, their promise over draws, and what becomes of it after quantizing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import special

from bitsure.comparison import compare
from bitsure.metrics import measure
from bitsure.metrics.conformal import answer_sets, least_probabilities
from bitsure.metrics.full_thresholds import SAFE_AT_FULL_THRESHOLD
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.set_size_change import set_size_change
from bitsure.metrics.temperature import assign_folds
from tests.builders.answers import harmed_runs, paired_runs
from tests.builders.settings import METRIC

SETTINGS = dataclasses.replace(METRIC, resamples=200)
AT_FULL = ("conformal_set_size_at_full_threshold", "conformal_coverage_at_full_threshold", *SAFE_AT_FULL_THRESHOLD)


def questions_of(p, gold) -> QuestionSet:
    """Return questions with the probabilities p, shape (n, K), and the right choices, shape (n,) or (n, K)."""
    p, gold = np.array(p, float), np.array(gold)
    is_gold = gold if gold.ndim == 2 else np.arange(p.shape[1]) == gold[:, None]
    return QuestionSet(np.log(p).ravel(), is_gold.ravel(), np.arange(len(p) + 1) * p.shape[1])


def drawn(rng, n, clusters=None, choices=4) -> QuestionSet:
    """Return questions of an overconfident model; those of a cluster are easy or hard together."""
    z = rng.normal(0, 2, (n, choices))
    truth = z / 2
    if clusters is not None:
        truth[np.arange(n), z.argmax(1)] += 1.5 * rng.normal(0, 1, clusters.max() + 1)[clusters]
    gold = (truth + rng.gumbel(0, 1, z.shape)).argmax(1)
    return questions_of(np.exp(z) / np.exp(z).sum(1, keepdims=True), gold)


def test_thresholds_and_sets_by_hand():
    # fold 0 is one question with three choices; the right answers of the other nine have p = .91, .82, … .19
    others = [[1 - 0.09 * k, 0.06 * k, 0.03 * k] for k in range(1, 10)]
    questions = questions_of([[0.5, 0.3, 0.2], *others], [1, *[0] * 9])
    fold = np.array([0, *[1] * 9])
    # nine and the question itself: the 9th smallest of nine scores 1 − p, which is .81
    assert least_probabilities(questions, fold, None)[0] == pytest.approx(0.19)
    # one of ten may be missed twice over: the 8th smallest
    assert least_probabilities(questions, fold, None, 0.2)[0] == pytest.approx(0.28)
    # fold 1 has one question to find a threshold on, too few for the promise: all choices
    sets = answer_sets(questions, fold, None)
    assert sets.least[1:].tolist() == [-math.inf] * 9
    assert sets.size.tolist() == [3] * 10 and sets.correct.tolist() == [1] * 10
    narrower = dataclasses.replace(sets, least=least_probabilities(questions, fold, None, 0.3))
    assert narrower.least[0] == pytest.approx(0.37) and narrower.size[0] == 1 and narrower.correct[0] == 0


def test_a_cluster_is_taken_for_missed_as_a_whole():
    right = np.linspace(0.99, 0.5, 40)
    questions = questions_of(np.stack([right, 1 - right], 1), np.zeros(40, int))
    clusters = np.repeat(np.arange(20), 2)
    fold = (np.arange(40) >= 4).astype(int)
    # 36 others and the two of the question's own cluster: ⌈.9 · 38⌉ = 35 of 36
    assert least_probabilities(questions, fold, clusters)[0] == pytest.approx(np.sort(right[4:])[::-1][34])
    assert least_probabilities(questions, fold, None)[0] == pytest.approx(np.sort(right[4:])[::-1][33])


def test_a_set_with_one_of_several_right_choices_covers():
    p = np.tile([0.6, 0.3, 0.1], (50, 1))
    sets = answer_sets(questions_of(p, np.tile([True, False, True], (50, 1))), np.arange(50) % 5, None)
    assert sets.least == pytest.approx(0.6) and sets.size.tolist() == [1] * 50 and sets.correct.all()


def test_the_threshold_of_a_fold_does_not_depend_on_its_own_questions():
    rng = np.random.default_rng(0)
    questions, fold = drawn(rng, 200), np.arange(200) % 5
    gold = questions.gold.reshape(-1, 4).copy()
    gold[fold == 0] = gold[fold == 0][:, ::-1]
    changed = least_probabilities(QuestionSet(questions.scores, gold.ravel(), questions.starts), fold, None)
    before = least_probabilities(questions, fold, None)
    assert (changed[fold == 0] == before[fold == 0]).all() and (changed[fold == 1] != before[fold == 1]).all()


@pytest.mark.parametrize("n", [45, 60])
def test_the_promise_holds_on_average_over_draws(n):
    coverage = [
        answer_sets(drawn(np.random.default_rng(seed), n), assign_folds(n, None, seed), None).correct.mean()
        for seed in range(400)
    ]
    calibrated_on = n * 4 // 5
    assert 0.9 - 0.004 < np.mean(coverage) < 0.9 + 1 / (calibrated_on + 1) + 0.004  # its standard error is about .001


def test_the_promise_holds_on_average_over_draws_of_clusters_of_any_size():
    coverage = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(30), rng.integers(1, 12, 30))
        questions = drawn(rng, len(clusters), clusters)
        coverage.append(answer_sets(questions, assign_folds(len(clusters), clusters, seed), clusters).correct.mean())
    assert np.mean(coverage) > 0.9


def test_identical_models_keep_every_promise():
    full, _, _ = paired_runs(100)
    results = compare(full, full, SETTINGS)["t"]
    own = measure(full, SETTINGS)["t"]
    for name in (*AT_FULL, "conformal_set_size"):
        assert results[name].value == 0 and results[name].baseline == results[name].quantized, name
        assert results[name].p_value is None
    for name in ("conformal_set_size", "conformal_coverage"):
        assert results[f"{name}_at_full_threshold"].quantized == pytest.approx(own[name].value)


def test_a_harmed_model_breaks_the_full_models_promise_and_pays_for_its_own():
    full, quantized = harmed_runs()
    results, own = compare(full, quantized, SETTINGS)["t"], measure(quantized, SETTINGS)["t"]
    broken = results["conformal_coverage_at_full_threshold"]
    assert broken.baseline == pytest.approx(0.9, abs=0.02) and broken.ci_high < -0.02
    assert broken.quantized == pytest.approx(broken.baseline + broken.value)
    assert results["conformal_set_size"].ci_low > 0 and own["conformal_set_size"].ci_low is None
    assert results["conformal_set_size"].quantized == own["conformal_set_size"].value
    assert own["conformal_coverage"].value == pytest.approx(0.9, abs=0.02)
    unsafe = results["deferral_safe_at_full_threshold_50_percent"]
    assert unsafe.ci_high < 0 and unsafe.share < 0.5  # overconfident: it defers less, and more errors pass
    assert "Agresti–Min" in unsafe.interval and unsafe.resampled == "questions"


@pytest.mark.parametrize("certainty", [2, 20])  # with 20 nearly all answers are right, and no set holds two choices
@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_the_interval_of_the_change_of_set_sizes_covers_its_mean_over_draws(certainty, noise):
    values, ends, fold = [], [], assign_folds(120, None, 0)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        z = rng.normal(0, certainty, (120, 3))
        gold = (z + rng.gumbel(0, 1, z.shape)).argmax(1)
        noisy = z + rng.normal(0, noise * certainty, z.shape)
        full, quantized = (
            answer_sets(questions_of(special.softmax(side, axis=1) + 1e-300, gold), fold, None) for side in (z, noisy)
        )
        change = set_size_change(full, quantized, fold, None, 0.95)
        values.append(change.value)
        ends.append(change.interval(0.95))
    low, high = np.transpose(ends)
    assert np.mean((low <= np.mean(values)) & (np.mean(values) <= high)) > 0.9


def test_the_change_of_set_sizes_counts_clusters_as_one():
    rng = np.random.default_rng(0)
    full, quantized = drawn(rng, 100), drawn(rng, 100)

    def half(copies: int) -> float:
        """Return the reach of the interval where each question comes so many times, in one cluster."""
        rows = np.repeat(np.arange(100), copies)
        clusters, fold = (None, np.arange(100) % 5) if copies == 1 else (rows, rows % 5)
        sides = (questions_of(side.p.reshape(-1, 4)[rows], side.gold.reshape(-1, 4)[rows]) for side in (full, quantized))
        low, high = set_size_change(*(answer_sets(side, fold, clusters) for side in sides), fold, clusters, 0.95).interval(0.95)
        return (high - low) / 2

    assert half(4) == pytest.approx(half(1), rel=0.1)


def test_deferral_at_the_full_models_threshold_by_hand():
    full, quantized, _ = paired_runs(100, shift=0.3)
    result = compare(full, quantized, SETTINGS)["t"]["deferral_safe_at_full_threshold_30_percent"]
    p, q = (np.array([np.exp(r.choice_logprobs[0]) for r in side]) for side in (full, quantized))
    fold = assign_folds(100, None, SETTINGS.seed)
    confidence = np.maximum(p, 1 - p)
    threshold = np.array([np.quantile(confidence[fold != k], 0.3) for k in range(5)])[fold]
    safe = [(np.maximum(side, 1 - side) < threshold) | (side > 0.5) for side in (p, q)]
    assert (result.baseline, result.quantized) == pytest.approx((safe[0].mean(), safe[1].mean()))
    assert result.share == pytest.approx((np.maximum(q, 1 - q) < threshold).mean())


@pytest.mark.parametrize("n", [1, 20])
def test_few_questions_have_no_interval(n):
    full, quantized, _ = paired_runs(n)
    results = compare(full, quantized, SETTINGS)["t"]
    measured = {**{name: results[name] for name in AT_FULL}, **measure(full, SETTINGS)["t"]}
    for name, result in measured.items():
        if name in AT_FULL or name.startswith("conformal"):
            assert result.ci_low is None and result.interval.startswith("none: "), name
            assert result.value is not None


def test_sets_are_those_of_mapie():
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Takes probabilities and returns them."""

        classes_ = np.arange(4)
        n_features_in_ = 4

        def fit(self, p, y):
            return self

        def __sklearn_is_fitted__(self):
            return True

        def predict_proba(self, p):
            return p

        def predict(self, p):
            return p.argmax(1)

    questions = drawn(np.random.default_rng(0), 200)
    p, gold = questions.p.reshape(-1, 4), questions.gold.reshape(-1, 4).argmax(1)
    fold = (np.arange(200) >= 100).astype(int)  # with 100 the ranks of both quantile formulas agree
    conformal = SplitConformalClassifier(Given(), confidence_level=0.9, conformity_score="lac", prefit=True)
    inside = conformal.conformalize(p[:100], gold[:100]).predict_set(p[100:])[1].reshape(100, 4)
    assert inside.sum(1).tolist() == answer_sets(questions, fold, None).size[100:].tolist()
