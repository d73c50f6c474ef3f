"""Golden values by hand, and what random draws must and must not hide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, t

from bitsure.metrics.across import contrasts, heterogeneity, over_draws


def test_cochrans_q_by_hand():
    # weights 1, 4, 4: their mean is (2 + 4 + 2) / 9
    middle = 8 / 9
    q = (2 - middle) ** 2 + 4 * (1 - middle) ** 2 + 4 * (0.5 - middle) ** 2
    found = heterogeneity([2.0, 1.0, 0.5], [1.0, 0.5, 0.5])
    assert found.q == pytest.approx(q) and found.p_value == pytest.approx(chi2.sf(q, 2)) and found.models == 3
    assert found.i_squared == pytest.approx(max(0, 1 - 2 / q)) and found.tau == 0  # Q is less than 2
    assert heterogeneity([1.0], [0.1]) is None and heterogeneity([1.0, np.nan], [0.1, 0.1]) is None


def test_tau_is_the_spread_beyond_the_errors():
    # equal errors s: DerSimonian–Laird's τ² is the sample variance less s²
    values, error = np.array([0.0, 1.0, 5.0, 2.0]), 0.5
    assert heterogeneity(values, [error] * 4).tau ** 2 == pytest.approx(values.var(ddof=1) - error**2)


def test_a_mean_over_draws_by_hand():
    found = over_draws([1.0, 3.0, 2.0], [0.3, 0.3, 0.3], 0.95)
    half = np.hypot(t.ppf(0.975, 2) / 3**0.5, 1.959964 * 0.3)  # of the draws by t, of the questions by the normal quantile
    assert (found.value, found.between, found.draws) == (2.0, 1.0, 3)
    assert found.ci_high - 2 == pytest.approx(2 - found.ci_low) == pytest.approx(half)
    same = over_draws([2.0, 2.0], [0.3, 0.3], 0.95)
    assert same.ci_high == pytest.approx(2 + 1.959964 * 0.3)  # many draws do not make the questions more


@pytest.mark.parametrize(("draws", "spread"), [(2, 0.3), (5, 0.3)])
def test_an_interval_over_draws_covers_the_truth(draws, spread):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):  # Δ_sq = μ + a_s + b_q + e_sq, of which the truth is μ = 0
        table = rng.normal(0, spread, (draws, 1)) + rng.normal(0, 1, 200) + rng.normal(0, 1, (draws, 200))
        found = over_draws(table.mean(1), table.std(1) / 200**0.5, 0.95)
        covered += found.ci_low < 0 < found.ci_high
    assert 0.94 < covered / 400 <= 0.995


def test_a_contrast_keeps_what_the_runs_have_in_common():
    together = np.random.default_rng(0).normal(0, 10, 1000)
    drawn = np.stack([together, together + 1 + np.linspace(-0.1, 0.1, 1000), together + 1], axis=1)
    apart, same = contrasts(np.array([0.0, 1.0, 1.0]), drawn, [(0, 1), (0, 2)], 0.95, 1000)
    assert apart.value == 1 and 0.9 < apart.ci_low < 1 < apart.ci_high < 1.1 and apart.p_value < 1e-10
    assert same.value == 1 and same.p_value is None
    assert contrasts(np.zeros(3), drawn, [], 0.95, 1000) == []
    [few] = contrasts(np.array([0.0, 1.0]), drawn[:, :2], [(0, 1)], 0.95, 3)
    assert few.p_value is None and few.ci_high - few.ci_low > 4 * (apart.ci_high - apart.ci_low) / 2


def test_one_error_far_below_the_others_leaves_a_number():
    found = heterogeneity([0.0, 0.5, 1.0], [1e-15, 0.1, 0.1])
    assert found.q == pytest.approx(25 + 100) and np.isfinite(found.tau) and found.tau > 0.5
