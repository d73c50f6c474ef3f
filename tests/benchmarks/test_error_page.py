"""Intervals of the tables of `benchmarks.layer_errors`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.error_page import mean_with_reach, rank_correlation, text_means


def reach(values) -> float:
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return (high - low) / 2


def test_an_interval_is_for_other_text_and_for_other_calibration_text():
    values = np.array([[0.1, 0.3, 0.2], [0.2, 0.5, 0.2]])
    assert mean_with_reach(values[:1]) == f"+0.2000 ± {reach(values[0]):.4f}"
    both = np.hypot(reach(values.mean(0)), reach(values.mean(1)))
    assert mean_with_reach(values) == f"+0.2500 ± {both:.4f}"


def test_a_text_is_one_observation():
    assert text_means([[1.0, 3.0], [5.0]]).tolist() == [2, 5]


def test_a_correlation_of_ranks_ignores_the_scale():
    pairs = [(x, x**3) for x in range(1, 8)]
    assert rank_correlation(pairs).startswith("+1.00 [")
    assert rank_correlation([(x, -y) for x, y in pairs]).startswith("-1.00 [")
    low = float(rank_correlation([*pairs, (0, 500)]).split("[")[1].split(",")[0])
    assert low == pytest.approx(np.tanh(np.arctanh(1 / 3) - 1.96 * 1.03 / 5**0.5), abs=0.006)
