"""Resampling and influence agree, and intervals cover what they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.choice_metrics import choice_metrics
from bitsure.metrics.estimation import estimate
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.statistic import mean
from tests.builders.answers import drawn_questions
from tests.builders.settings import METRIC

SMOOTH = set(choice_metrics(drawn_questions(50), METRIC)) - {
    "maximum_calibration_error"
}  # a largest of several is no smooth function


@pytest.mark.parametrize("name", sorted(SMOOTH))
def test_influence_gives_the_bootstraps_standard_error(name):
    questions = drawn_questions(4000, power=2)
    chosen = {name: choice_metrics(questions, METRIC)[name]}
    resampled = estimate(chosen, questions, resample_weights(4000, 500, 0))[name]
    influence = estimate(chosen, questions, None)[name]
    assert influence.value == resampled.value and influence.replicates is None
    assert influence.standard_error == pytest.approx(resampled.standard_error, rel=0.15)


def test_a_difference_is_paired():
    one, other = drawn_questions(500, power=2), drawn_questions(500, power=2)
    chosen = choice_metrics(one, METRIC)
    for weights in (resample_weights(500, 200, 0), None):
        for found in estimate(chosen, one, weights, minus=other).values():
            assert found.value == 0 and found.standard_error == pytest.approx(0, abs=1e-12)


def test_questions_of_a_cluster_are_drawn_together():
    clusters = np.repeat(np.arange(100), 5)
    weights = resample_weights(500, 50, 0, clusters)
    assert weights.shape == (500, 50) and all((weights[clusters == c] == weights[5 * c]).all() for c in range(100))
    values = np.repeat(np.random.default_rng(0).normal(size=100), 5)  # the same in a cluster: 100 questions and not 500
    same = {"mean": mean(lambda asked: asked)}
    alone = estimate(same, values, resample_weights(500, 500, 0))["mean"].standard_error
    together = estimate(same, values, resample_weights(500, 500, 0, clusters))["mean"].standard_error
    assert together == pytest.approx(np.sqrt(5) * alone, rel=0.15)
    assert estimate(same, values, None, clusters)["mean"].standard_error == pytest.approx(together, rel=0.15)


def test_many_questions_get_influence_functions():
    few = Resampling(50_000, None, dataclasses.replace(METRIC, resamples=100))
    many = Resampling(50_001, None, METRIC)
    assert few.weights is not None and many.weights is None


def test_the_basic_interval_of_the_error_covers_a_true_gap():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(60):
        questions = drawn_questions(1500, power=1.5, seed=seed)
        chosen = {"ece": choice_metrics(questions, METRIC)["expected_calibration_error"]}
        low, high = estimate(chosen, questions, resample_weights(1500, 200, seed))["ece"].interval(0.95)
        grid = rng.uniform(0.5, 0.999, 20_000)
        covered += low <= np.mean(grid - grid**1.5) <= high
    assert covered >= 50
