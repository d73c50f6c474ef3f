"""What a sweep's picture is: a figure to be drawn, and the numbers in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitsure.sweep.report.sweep_statistics import said
from bitsure.sweep.report.sweep_table import COSTS

POINT = ("series", "parameters", "model", "quantizer", "setting", "bits_per_weight", "bits_per_weight_coded", "size_bytes")
POINT += (*COSTS, "task", "metric")


@dataclass(frozen=True)
class Picture:
    """One figure: `draw` writes the PNG, `rows` are its numbers."""

    name: str
    title: str
    caption: str
    rows: list[dict]
    draw: Callable[[Path], Path]


def numbers(rows: list[dict], *more: str) -> list[dict]:
    """A picture's rows for its CSV."""
    keys = (*POINT, "value", "ci_low", "ci_high", "n", "baseline", "delta", "delta_ci_low", "delta_ci_high", *more)
    return [{key: row[key] for key in keys} | {"draws": said(row.get("draws", {}))} for row in rows]
