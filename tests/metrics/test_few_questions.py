"""Few questions, or clusters of them, get t intervals of means, no approximate tests, and no intervals that cannot hold."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bitsure.comparison import compare
from bitsure.comparison.between_models import QuantizedModel, compare_models
from bitsure.comparison.changes import AnswerChanges
from bitsure.metrics import measure
from bitsure.metrics.estimation import estimate
from bitsure.metrics.flips import newcombe
from bitsure.metrics.question_pairs import AnswerPairs
from bitsure.metrics.text_metrics import TextSet, text_metrics
from bitsure.records.record import Record
from tests.builders.answers import paired_runs, two_choices
from tests.builders.settings import METRIC

NEED_MANY = (
    "expected_calibration_error",
    "debiased_squared_calibration_error",
    "auroc",
    "aurc",
    "brier_resolution",
    "temperature",
)


def mixed(n: int, seed: int = 0, shift: float = 0.0) -> list[Record]:
    """Return questions of which some are right."""
    rng = np.random.default_rng(seed)
    return [two_choices(float(p) - shift, int(rng.random() > p), i) for i, p in enumerate(rng.uniform(0.3, 0.9, n))]


def graded(before, after) -> AnswerPairs[TextSet]:
    """Return pairs of continuations that are right or wrong."""
    sides = (np.array(side, dtype=float) for side in (before, after))
    return AnswerPairs(*(TextSet(-np.ones(len(side)), None, side, None, None) for side in sides))


@pytest.mark.parametrize("nll", [[1.0, 10.0], [0.5, 2.0, 9.0], [300.0, 1e-3]])
def test_a_perplexity_of_few_texts_has_the_t_interval_of_their_nll(nll):
    texts = TextSet(-np.array(nll), None, np.zeros(len(nll)), None, None)
    perplexity = estimate({"perplexity": text_metrics(texts)["perplexity"]}, texts, None)["perplexity"]
    expected = stats.ttest_1samp(nll, 0).confidence_interval(0.95)
    low, high = perplexity.interval(0.95)
    assert low == pytest.approx(max(1.0, math.exp(expected.low)))
    assert high == pytest.approx(math.exp(min(expected.high, 709.0)))


def test_a_mean_of_few_questions_has_a_t_interval():
    rows = mixed(12)
    values = [math.exp(row.choice_logprobs[row.gold[0]]) for row in rows]
    result = measure(rows, METRIC)["t"]["true_label_prob"]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result.ci_low, result.ci_high) == pytest.approx((expected.low, expected.high))
    assert result.interval == "t" and result.resampled == "none: the variance of questions"


def test_a_mean_over_few_clusters_has_a_t_interval_of_as_many():
    rows = [dataclasses.replace(row, cluster=f"c{i % 5}") for i, row in enumerate(mixed(40))]
    values = [math.exp(row.choice_logprobs[row.gold[0]]) for row in rows]
    means = np.bincount(np.arange(40) % 5, values) / 8  # clusters of one size
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    result = measure(rows, METRIC)["t"]["true_label_prob"]
    assert (result.ci_low, result.ci_high) == pytest.approx((expected.low, expected.high))
    assert measure(rows, METRIC)["t"]["auroc"].interval == "none: 5 clusters"


@pytest.mark.parametrize("n", [2, 5, 29])
def test_few_questions_have_no_interval_of_what_is_no_mean_and_no_z_test(n):
    full, quantized = mixed(n), mixed(n, shift=0.1)
    measured, compared = measure(full, METRIC)["t"], compare(full, quantized, METRIC)["t"]
    for name in NEED_MANY:
        for result in (measured[name], compared[name]):
            assert result.ci_low is None and result.interval == f"none: {n} questions" and result.resampled is None, name
    assert not [name for name, difference in compared.items() if difference.test == "z-test"]
    assert all(difference.effect_size_ci is None for difference in compared.values() if difference.effect == "Cohen's d_z")
    assert compared["true_label_prob"].p_value is not None  # Student's test holds for any number


def test_thirty_questions_have_both():
    full, quantized = mixed(30), mixed(30, shift=0.1)
    compared = compare(full, quantized, METRIC)["t"]
    assert compared["nll"].test == "z-test" and compared["debiased_squared_calibration_error"].ci_low is not None


def test_one_question_has_no_interval_and_says_so():
    full, quantized, _ = paired_runs(1)
    measured, compared = measure(full, METRIC)["t"], compare(full, quantized, METRIC)["t"]
    for name, result in [*measured.items(), *compared.items()]:
        if not name.startswith("questions_") and not name.endswith("_if_calibrated"):
            assert result.ci_low is None and result.interval.startswith("none: "), name


def test_proportions_stay_in_their_range_and_are_never_certain():
    right = [two_choices(0.9, 0, i) for i in range(10)]
    accuracy = measure(right, METRIC)["t"]["accuracy"]
    assert accuracy.value == accuracy.ci_high == 1 and 0.6 < accuracy.ci_low < 0.75
    flips = compare(right, right, METRIC)["t"]["flip_rate"]
    assert flips.value == flips.ci_low == 0 and 0.25 < flips.ci_high < 0.4
    many = compare(*(2 * [[two_choices(0.9, 0, i) for i in range(100)]]), METRIC)["t"]["flip_rate"]
    assert many.ci_low == 0 and 0.02 < many.ci_high < 0.05  # none of 100 does not prove that none can


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_no_difference_of_accuracies_leaves_its_range(n):
    for before, after in itertools.product(itertools.product((0, 1), repeat=n), repeat=2):
        low, high = newcombe(graded(before, after), 0.95)
        assert -1 <= low <= (sum(after) - sum(before)) / n <= high <= 1
    wrong, right = [two_choices(0.9, 1, i) for i in range(3)], [two_choices(0.1, 1, i) for i in range(3)]
    worst = compare(right, wrong, METRIC)["t"]["accuracy"]
    assert worst.value == worst.ci_low == -1 and worst.ci_high < 0


def test_newcombes_interval_by_his_example():
    before, after = [1] * 38 + [0] * 12, [1] * 36 + [0] * 2 + [1] * 12  # 36 right twice, 2 lost, 12 won
    assert newcombe(graded(before, after), 0.95) == pytest.approx((0.0569, 0.3404), abs=1e-4)


def test_models_on_few_questions_are_contrasted_by_t_and_not_tested():
    rng = np.random.default_rng(0)

    def model(name: str, n: int) -> QuantizedModel:
        values = {metric: rng.normal(0, 0.1, n) for metric in ("true_label_prob", "accuracy")}
        return QuantizedModel(name, {"t": AnswerChanges(np.arange(n, dtype=np.uint64), None, values)})

    few = compare_models([model("a", 6), model("b", 6)], METRIC)["t"]
    assert few.heterogeneity is None and few.pairs[0].contrast.p_value is None
    assert few.pairs[0].contrast.ci_low < few.pairs[0].contrast.ci_high
    many = compare_models([model("a", 40), model("b", 40)], METRIC)["t"]
    assert many.heterogeneity is not None and many.pairs[0].contrast.p_value is not None
    assert compare_models([model("a", 1), model("b", 1)], METRIC)["t"].pairs == []


def test_the_tests_that_are_made_keep_their_level():
    """Of two models that differ by chance alone, at few questions and at many."""
    for n in (5, 40):
        rejected, made = 0, 0
        for seed in range(40):
            rng = np.random.default_rng(seed)
            noisy = [rng.normal(0, 1, n), rng.normal(0, 1, n)]
            sides = [
                [two_choices(float(1 / (1 + math.exp(-1 - z))), int(i % 3 > 1), i) for i, z in enumerate(side)]
                for side in noisy
            ]
            compared = compare(*sides, dataclasses.replace(METRIC, resamples=100))["t"]
            p_values = [difference.p_value for difference in compared.values() if difference.p_value is not None]
            rejected, made = rejected + sum(p <= 0.05 for p in p_values), made + len(p_values)
        assert rejected / made < 0.09
