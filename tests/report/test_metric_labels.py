"""Metrics in words."""

from __future__ import annotations

import pytest

from bitsure.report.metric_labels import metric_label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("accuracy", "accuracy"),
        ("macro_average", "mean over tasks"),
        ("true_label_prob", "true-label probability"),
        ("expected_calibration_error", "binned calibration error"),
        ("nll", "NLL"),
        ("kl_divergence", "KL divergence"),
        ("my_own_metric", "my own metric"),
    ],
)
def test_a_metric_is_called_by_words(name, label):
    assert metric_label(name) == label
