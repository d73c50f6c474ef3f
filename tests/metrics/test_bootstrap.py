from __future__ import annotations

import numpy as np
import pytest

from bitsure.metrics import bootstrap
from bitsure.metrics.bootstrap import basic_interval, percentile_interval, resample_weights


def test_weights_are_resamples_and_follow_the_seed():
    weights = resample_weights(50, 200, seed=3)
    assert weights.shape == (50, 200) and (weights.sum(0) == 50).all()
    assert (weights == resample_weights(50, 200, seed=3)).all() and (weights != resample_weights(50, 200, seed=4)).any()


@pytest.mark.parametrize("clusters", [None, np.arange(21) // 2])
def test_weights_are_the_same_however_many_are_drawn_at_once(monkeypatch, clusters):
    units = 21 if clusters is None else 11
    rng = np.random.default_rng(7)
    one_by_one = np.array([np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(10)]).T
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", 4 * units)  # 4, 4 and 2
    weights = resample_weights(21, 10, 7, clusters)
    assert (weights == (one_by_one if clusters is None else one_by_one[clusters])).all()


def test_percentile_interval_of_known_replicates_leaves_out_what_does_not_exist():
    replicates = np.array([*np.arange(101.0), np.nan])
    assert percentile_interval(replicates, 0.9) == pytest.approx((5, 95))
    assert np.isnan(percentile_interval(np.array([np.nan]), 0.9)).all()


def test_basic_interval_is_mirrored():
    assert basic_interval(60, np.arange(101.0), 0.9) == pytest.approx((25, 115))
    assert basic_interval(10, np.arange(101.0), 0.9) == pytest.approx((-75, 15))


def test_intervals_cover_a_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        sample = rng.normal(1.0, 1.0, 100)
        low, high = percentile_interval(sample @ resample_weights(100, 300, seed) / 100, 0.9)
        covered += low <= 1.0 <= high
    assert 165 <= covered <= 195
