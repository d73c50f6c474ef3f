"""Settings that many tests share."""

from __future__ import annotations

from bitsure.config.metric import MetricSettings
from bitsure.config.schema import VerdictSettings

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
MARGINS = VerdictSettings(strict=False, accuracy_margin=0.01, nll_margin=0.02, calibration_error_margin=0.01)
