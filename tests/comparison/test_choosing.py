"""A choice among many quantizers is as safe as a verdict on one, and says how many questions would decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from bitsure.comparison.choosing import TaskLosses, choose


def flips(lost: int, won: int, n: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [lost, won, n - lost - won])


def of(*losses: np.ndarray, sizes=None, margin=0.01, clusters=None):
    columns = np.stack(losses, axis=1)
    return choose([TaskLosses(columns, clusters)], sizes or range(columns.shape[1]), margin, 0.95, seed=0)


def half_width(verdict) -> float:
    return (verdict.ci_high - verdict.ci_low) / 2


def test_the_bounds_of_a_single_candidate_are_those_of_a_t_interval_with_room_for_unseen_flips():
    [verdict] = of(flips(40, 10, 1000)).candidates
    z = t.ppf(0.975, 999)
    variance = (50 - 1000 * 0.03**2) / 999 / 1000
    assert verdict.loss == pytest.approx(0.03)
    assert half_width(verdict) == pytest.approx(z * math.sqrt(variance + z**2 / 1000**2), rel=0.02)
    assert verdict.verdict == "inferior" and verdict.needed is None


def test_without_any_flip_the_loss_may_be_what_was_never_seen():
    for n, verdict in ((100, "undecided"), (600, "non-inferior")):
        [candidate] = of(flips(0, 0, n)).candidates
        assert candidate.ci_high == pytest.approx(t.ppf(0.975, n - 1) ** 2 / n)
        assert candidate.verdict == verdict


def test_the_questions_needed_are_those_of_80_percent_power():
    z = t.ppf(0.975, 199)
    [candidate] = of(flips(0, 0, 200)).candidates
    assert 200 + candidate.needed.if_lossless == pytest.approx((z + norm.ppf(0.8)) * z / 0.01)
    [candidate] = of(flips(150, 120, 3000)).candidates
    z, variance = t.ppf(0.975, 2999), (270 - 3000 * 0.01**2) / 2999
    classical = ((z + norm.ppf(0.8)) / 0.01) ** 2 * variance
    assert 3000 + candidate.needed.if_lossless == pytest.approx(classical, rel=0.03)
    assert candidate.needed.low < candidate.needed.if_lossless < candidate.needed.high


def test_the_interval_of_the_questions_needed_covers_what_the_true_variance_needs():
    rng, covered = np.random.default_rng(0), []
    needed = ((norm.ppf(0.975) + norm.ppf(0.8)) / 0.01) ** 2 * 0.1
    for _ in range(200):
        [candidate] = of(rng.choice([1.0, 0.0, -1.0], 1000, p=[0.05, 0.9, 0.05])).candidates
        if candidate.needed is not None:
            covered.append(1000 + candidate.needed.low <= needed <= 1000 + candidate.needed.high)
    assert len(covered) > 150 and np.mean(covered) >= 0.9


def test_more_candidates_have_wider_bounds_unless_they_flip_the_same_answers():
    rng = np.random.default_rng(0)
    apart = [rng.permutation(flips(50, 50, 2000)) for _ in range(8)]
    single, same, independent = (half_width(of(*some).candidates[0]) for some in (apart[:1], apart[:1] * 8, apart))
    assert same == pytest.approx(single, rel=0.02)
    assert independent / single == pytest.approx(norm.ppf((1 + 0.95 ** (1 / 8)) / 2) / norm.ppf(0.975), rel=0.03)


def test_questions_of_a_cluster_count_as_one():
    losses = np.random.default_rng(0).permutation(flips(60, 50, 500))
    alone = of(losses)
    repeated = of(np.repeat(losses, 4), clusters=np.repeat(np.arange(500), 4))
    assert half_width(repeated.candidates[0]) == pytest.approx(half_width(alone.candidates[0]), rel=0.03)


def test_tasks_count_alike():
    tasks = [TaskLosses(flips(lost, 0, n)[:, None]) for lost, n in ((10, 100), (0, 900))]
    assert choose(tasks, [1], 0.01, 0.95, 0).candidates[0].loss == pytest.approx(0.05)


def test_the_smallest_that_is_surely_within_the_margin_is_chosen():
    losses = [flips(*counts, 3000) for counts in ((900, 0), (5, 4), (30, 30), (0, 0), (100, 70))]
    choice = of(*losses, sizes=[2, 8, 3, 4, 3.5])
    assert [one.verdict for one in choice.candidates] == [
        "inferior",
        "non-inferior",
        "non-inferior",
        "non-inferior",
        "undecided",
    ]
    assert choice.fit[:2] == (2, 3)
    assert not of(losses[0]).fit
    tied = of(*losses[1:4], sizes=[4, 4, 4])
    assert tied.fit[0] == 2  # of one size, the one that surely loses least


@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(20), 50)])
def test_fewer_than_30_questions_or_clusters_decide_nothing(clusters):
    n = 25 if clusters is None else len(clusters)
    choice = of(flips(0, 0, n), flips(n, 0, n), clusters=clusters)
    assert {(one.verdict, one.needed) for one in choice.candidates} == {("undecided", None)}
    assert not choice.fit


def test_a_single_question_has_no_interval():
    [candidate] = of(flips(0, 0, 1)).candidates
    assert math.isnan(candidate.ci_high) and candidate.verdict == "undecided"


def test_among_many_at_the_margin_hardly_ever_one_is_called_non_inferior():
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        losses = rng.choice([1.0, 0.0, -1.0], (800, 6), p=[0.02, 0.97, 0.01])  # true losses of 0.01
        wrong += bool(choose([TaskLosses(losses)], range(6), 0.01, 0.95, 0).fit)
    assert wrong <= 0.05 * 200
