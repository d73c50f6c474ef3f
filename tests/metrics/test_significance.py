from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.estimation import estimate, standardized
from bitsure.metrics.flips import mcnemar, sign_flips
from bitsure.metrics.multiple_testing import benjamini_hochberg, holm
from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.significance import cluster_robust_t_test, paired_t_test, z_test
from bitsure.metrics.statistic import mean


def flips(kept: int, lost: int, won: int) -> QuestionPairs:
    """Questions of two choices: right before and after, right before, right after."""
    before, after = [1] * kept + [1] * lost + [0] * won, [1] * kept + [0] * lost + [1] * won
    sides = [
        QuestionSet(np.log([[0.3, 0.7], [0.7, 0.3]])[side].ravel(), _gold(len(side)), _starts(len(side)))
        for side in (before, after)
    ]
    return QuestionPairs(*sides, np.zeros(len(before), dtype=int))


def _gold(n):
    return np.tile([True, False], n)


def _starts(n):
    return np.arange(n + 1) * 2


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])


def test_benjamini_hochberg_by_hand():
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert benjamini_hochberg([]) == []


def test_the_exact_test_of_flips_and_its_effect_by_hand():
    found = mcnemar(flips(20, 8, 2), None, 0.95)
    assert found.p_value == pytest.approx(2 * sum(stats.binom.pmf(k, 10, 0.5) for k in (0, 1, 2)))
    assert (found.statistic, found.effect_size) == (8, 0.8)
    expected = stats.binomtest(8, 10).proportion_ci(0.95, method="exact")
    assert found.effect_size_ci == pytest.approx([expected.low, expected.high])


@pytest.mark.parametrize(("lost", "won", "ci"), [(5, 0, (0.025 ** (1 / 5), 1.0)), (0, 5, (0.0, 1 - 0.025 ** (1 / 5)))])
def test_flips_in_one_direction_alone_leave_the_other_possible(lost, won, ci):
    found = mcnemar(flips(5, lost, won), None, 0.95)
    assert found.effect_size_ci == pytest.approx(ci) and found.p_value == pytest.approx(2 / 32)


def test_no_flip_has_no_effect_size():
    found = mcnemar(flips(5, 0, 0), None, 0.95)
    assert (found.p_value, found.effect_size, found.effect_size_ci) == (1.0, None, None)


@pytest.mark.parametrize("net", [[1, 1, -1, 2], [3, 3, -1], [1] * 9, [2, -2], [5], []])
def test_signs_of_clusters_against_all_of_them(net):
    sums = [abs(np.dot(net, signs)) for signs in itertools.product((-1, 1), repeat=len(net))]
    assert sign_flips(np.array(net, dtype=int)) == pytest.approx(np.mean(np.array(sums) >= abs(sum(net))))


def test_a_question_a_cluster_is_mcnemars_test():
    alone, clustered = (mcnemar(flips(20, 8, 2), clusters, 0.95) for clusters in (None, np.arange(30)))
    assert clustered.p_value == pytest.approx(alone.p_value)
    assert clustered.effect_size_ci == pytest.approx(alone.effect_size_ci)


def test_flips_that_come_in_clusters_count_as_clusters():
    pairs = flips(0, 40, 10)
    clusters = np.arange(50) // 5  # eight clusters lost five each, two won five each
    alone, clustered = (mcnemar(pairs, which, 0.95) for which in (None, clusters))
    assert clustered.p_value == pytest.approx(stats.binomtest(8, 10).pvalue) and clustered.p_value > 100 * alone.p_value
    expected = stats.binomtest(8, 10).proportion_ci(0.95, method="exact")
    assert clustered.effect_size_ci == pytest.approx([expected.low, expected.high])


def test_many_flips_are_convolved_fast_and_right():
    rng = np.random.default_rng(0)
    net = rng.choice([-3, -2, -1, 1, 2, 3], 20_000)
    normal = 2 * stats.norm.sf(abs(net.sum()) / np.sqrt((net**2).sum()))
    assert sign_flips(net) == pytest.approx(normal, rel=0.02)


def test_the_standardized_difference_of_a_mean_is_cohens_d_z():
    rng = np.random.default_rng(0)
    full, quant = rng.normal(0, 1, 400), rng.normal(0.2, 1, 400)
    found = estimate({"mean": mean(lambda values: values)}, quant, resample_weights(400, 200, 0), minus=full)["mean"]
    tested, difference = z_test(found, 0.95), quant - full
    assert tested.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    # Hedges & Olkin (1985), who take differences for normal, as these are
    half = 1.96 * np.sqrt(1 / 400 + tested.effect_size**2 / 800)
    assert tested.effect_size_ci == pytest.approx([tested.effect_size - half, tested.effect_size + half], abs=0.01)


@pytest.mark.parametrize("clusters", [None, np.arange(2000) // 4])
def test_the_error_of_a_standardized_difference_is_the_bootstraps(clusters):
    rng = np.random.default_rng(1)
    difference = rng.exponential(1, 2000) - 0.7  # skewed: no normal theory
    if clusters is not None:
        difference = difference[clusters]
    tested = paired_t_test(difference, resample_weights(2000, 2000, 0, clusters), clusters, 0.95, 0.01)
    d_z, error = standardized(difference.mean(), difference - difference.mean(), clusters)
    low, high = tested.effect_size_ci
    assert tested.effect_size == d_z and 3.92 * error == pytest.approx(high - low, rel=0.1)


def test_differences_that_do_not_vary_have_no_effect_size():
    ratio, error = standardized(0.1, np.zeros(10), None)
    assert np.isnan(ratio) and np.isnan(error)


def test_a_few_differences_of_rounding_size_are_no_evidence():
    tested = paired_t_test(np.array([1e-17, 3e-17]), None, None, 0.95, 0.01)
    assert (tested.p_value, tested.effect_size, tested.effect_size_ci) == (1.0, None, None)
    two = paired_t_test(np.array([0.1, 0.3]), np.array([[2.0, 0.0], [0.0, 2.0]]), None, 0.95, 0.01)
    assert two.p_value < 1 and two.effect_size is None  # no resample has a spread


def test_clusters_of_one_size_are_a_t_test_of_their_means():
    difference = np.random.default_rng(0).normal(0.1, 1, 120)
    clusters = np.arange(120) % 40
    means = np.bincount(clusters, difference) / 3
    expected = stats.ttest_1samp(means, 0)
    found, ends = cluster_robust_t_test(difference, clusters, 0.95, 0.01)
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval(0.95)
    detectable = paired_t_test(means, None, None, 0.95, 0.01).smallest_detectable
    assert found.smallest_detectable == pytest.approx(detectable)
    assert ends == pytest.approx((interval.low, interval.high))


def test_the_cluster_robust_test_keeps_its_level_where_the_plain_one_does_not():
    rng, clusters, rejected = np.random.default_rng(0), np.repeat(np.arange(50), 8), np.zeros(2)
    for _ in range(400):
        difference = rng.normal(0, 1, 50)[clusters] + rng.normal(0, 1, 400)  # nothing but noise that clusters share
        plain = stats.ttest_1samp(difference, 0).pvalue
        rejected += np.array([plain, cluster_robust_t_test(difference, clusters, 0.95, 0.01)[0].p_value]) < 0.05
    assert rejected[0] > 80 and rejected[1] < 32  # of 400, 20 expected


def test_clusters_that_do_not_vary_have_no_test():
    assert cluster_robust_t_test(np.full(9, 0.1), np.arange(9) // 3, 0.95, 0.01)[0].p_value == 1.0
