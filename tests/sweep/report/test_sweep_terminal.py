"""A sweep's headline numbers in terminals of every width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bitsure.sweep.report.sweep_terminal import COLUMNS, headline
from tests.builders.study_rows import study_row

ROWS = [
    study_row("runs/one/final", metric=metric, **quantizer)
    for metric in COLUMNS
    for quantizer in (
        {"quantizer": "none", "delta": None, "seed": None},
        {"quantizer": "rtn4-asym-a8-kv4", "asked": "w4a8kv4"},
        {"quantizer": "rtn3-asym-g32", "asked": "w3 group_size=32"},
    )
]


@pytest.mark.parametrize(("width", "metrics"), [(60, 2), (80, 4), (120, 4)])
def test_no_word_and_no_number_is_cut(width, metrics):
    out = io.StringIO()
    Console(file=out, width=width).print(headline(ROWS, width))
    text = out.getvalue()
    assert text.count("0.500 -0.100") == 2 * metrics and text.count("0.500 ") == 3 * metrics and "…" not in text
    for words in ("runs/one/final", "  full precision", "  w4a8kv4 ", "  w3 group_size=32", "accuracy", "true-label"):
        assert words in text, text
    assert ("confidence" in text) == ("calibration" in text) == (metrics == 4)
