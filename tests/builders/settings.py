"""Settings that many tests share."""

from __future__ import annotations

from bitsure.config.schema import MetricSettings

METRIC = MetricSettings(
    n_bins=15,
    binning="uniform",
    normalization="none",
    paper_compat=False,
    resamples=500,
    confidence_level=0.95,
    alpha=0.01,
    seed=0,
)
