"""What the refusal of a model that cannot be quantized says of scoring it."""

from __future__ import annotations

import pytest

from benchmarks.class_row import study
from benchmarks.classes import families, presets
from bitsure.quantize.refusals import IN_FULL_PRECISION


@pytest.mark.parametrize(
    ("family", "scoring"),
    [
        ("xlm", "refused: the model reads the tokens after the one that it predicts"),
        ("xlnet", "refused: the model reads the tokens after the one that it predicts"),
        ("reformer", "refused: the model gives the same input other probabilities each time"),
        ("zamba", "copies"),
        ("zamba2", "copies"),
        ("blt", "plain"),
    ],
)
def test_a_model_that_is_not_quantized_is_scored_or_refused_with_a_reason(family, scoring, tmp_path):
    row = study(family, families()[family], {"rtn": presets()["rtn"]}, tmp_path)
    assert row.quantized["rtn"].startswith("refused: ") and row.quantized["rtn"].endswith(f" {IN_FULL_PRECISION}")
    assert row.scoring.startswith(scoring) and not row.crashes
