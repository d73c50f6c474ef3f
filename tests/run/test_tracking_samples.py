"""What is tracked of single questions."""

from __future__ import annotations

import pytest

from bitsure.run.tracking_samples import SAMPLE_COLUMNS, sample_rows
from tests.builders.answers import paired_runs


def test_samples_show_both_models_choice():
    full, quant, _ = paired_runs(5)
    rows = sample_rows(quant, full[:4], "none")
    as_dicts = [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in rows]
    assert as_dicts[0]["true_label_prob_change"] == pytest.approx(
        as_dicts[0]["true_label_prob"] - as_dicts[0]["baseline_true_label_prob"]
    )
    assert as_dicts[4]["baseline_confidence"] is None and as_dicts[4]["confidence"] > 0.5
