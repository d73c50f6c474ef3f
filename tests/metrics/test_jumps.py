"""Statistics with jumps: bins of one question, largest values. Their influence is bounded, their errors are right."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.metrics.bins import Bins
from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.calibration import debiased_squared_error
from bitsure.metrics.choice_metrics import choice_metrics
from bitsure.metrics.estimation import estimate
from bitsure.metrics.leave_one_out import MOST_LEFT_OUT, leave_one_out_influence
from bitsure.metrics.significance import z_test
from bitsure.metrics.smooth_calibration import smooth_calibration_error
from bitsure.metrics.statistic import mean
from tests.builders.answers import binary_questions, drawn_questions
from tests.builders.settings import METRIC

FIFTEEN = Bins.uniform(15)
LONELY = ([0.51, *[0.9] * 200], [1, *[1] * 180, *[0] * 20])  # one question in a bin of its own


@pytest.mark.parametrize("name", sorted(choice_metrics(drawn_questions(50), METRIC)))
def test_a_bin_of_one_question_leaves_the_error_without_resampling_below_the_range(name):
    questions = binary_questions(*LONELY)
    result = estimate({name: choice_metrics(questions, METRIC)[name]}, questions, None)[name]
    assert 0 <= result.standard_error < 0.5


def test_the_interval_of_very_many_questions_is_narrow():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([[0.51], rng.uniform(0.8, 0.99, 60_000)])
    questions = binary_questions(confidence, rng.random(60_001) < confidence)
    low, high = estimate({"error": debiased_squared_error(FIFTEEN)}, questions, None)["error"].interval(0.95)
    assert -1e-3 < low < 0 < high < 1e-3


def test_effect_sizes_do_not_shrink_where_a_bin_holds_one_question():
    rng, sizes = np.random.default_rng(1), []
    for extra in ([], [0.51]):
        confidence = np.concatenate([extra, rng.uniform(0.7, 0.99, 400)])
        correct = rng.random(len(confidence)) < confidence
        sharper = np.where(confidence > 0.6, confidence + 0.9 * (1 - confidence), confidence)
        full, quantized = binary_questions(confidence, correct), binary_questions(sharper, correct)
        weights = resample_weights(len(full), 200, 0)
        chosen = {"error": debiased_squared_error(FIFTEEN)}
        sizes.append(z_test(estimate(chosen, quantized, weights, minus=full)["error"], 0.95).effect_size)
    assert sizes[0] > 0.1 and sizes[1] == pytest.approx(sizes[0], rel=0.5)


def test_leaving_out_gives_a_means_influence_exactly():
    values = np.random.default_rng(0).normal(size=50)
    _, influence = mean(lambda v: v).value_and_influence(values)
    assert influence == pytest.approx(values - values.mean())


@pytest.mark.parametrize("statistic", [debiased_squared_error(FIFTEEN), smooth_calibration_error()])
def test_similar_questions_that_are_left_out_once_have_their_own_influence(statistic):
    questions = drawn_questions(3 * MOST_LEFT_OUT, power=1.5)
    features = statistic.features(questions)
    value, merged = statistic.value_and_influence(questions)
    rows = features.toarray()
    exact = (len(rows) - 1) * (value - statistic.from_sums(rows.sum(0) - rows))
    assert merged == pytest.approx(exact, abs=0.05 * np.abs(exact).max())
    assert leave_one_out_influence(rows, statistic.from_sums)[1] == pytest.approx(exact)


@pytest.mark.parametrize("power", [1.0, 1.6])
@pytest.mark.parametrize("per_cluster", [1, 4])
def test_the_difference_of_the_debiased_error_has_the_standard_error_that_it_varies_by(power, per_cluster):
    """At n = 200, calibrated and not, alone and in clusters that share whether they are right."""
    n, values, errors = 200, [], []
    clusters = None if per_cluster == 1 else np.arange(n) // per_cluster
    statistic = {"error": debiased_squared_error(FIFTEEN)}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.5, 0.999, n)
        luck = rng.random(n)[: n if clusters is None else None]
        correct = (luck if clusters is None else luck[clusters]) < confidence**power
        other = np.clip(confidence + rng.normal(0, 0.06, n), 0.5, 0.999)
        full, quantized = binary_questions(confidence, correct), binary_questions(other, correct)
        result = estimate(statistic, quantized, None, clusters, minus=full)["error"]
        values.append(result.value)
        errors.append(result.standard_error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.2)
    covered = np.mean(np.abs(np.array(values) - np.mean(values)) <= 1.96 * np.array(errors))
    assert 0.91 <= covered <= 0.99


def test_the_debiased_error_of_few_large_clusters_has_the_standard_error_that_it_varies_by():
    """A gap that all clusters share is no chance, however few they are."""
    statistic, clusters, values, errors = {"error": debiased_squared_error(FIFTEEN)}, np.repeat(np.arange(30), 60), [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        confidence = 1 / (1 + np.exp(-np.abs(rng.normal(1, 1, len(clusters)))))
        correct = rng.random(len(clusters)) < confidence - 0.15 + rng.normal(0, 0.05, 30)[clusters]
        result = estimate(statistic, binary_questions(confidence, correct), None, clusters)["error"]
        values.append(result.value)
        errors.append(result.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)
