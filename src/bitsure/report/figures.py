"""Pictures of records: reliability diagrams, in colours that the colour-blind can tell apart."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bitsure.config import Metric
from bitsure.metrics import bins_of
from bitsure.metrics.calibration import Bins, reliability_diagram
from bitsure.metrics.confidence import Questions, questions
from bitsure.records import Records, by_task

FULL, QUANTIZED = "#0072B2", "#D55E00"  # Okabe & Ito (2008): blue and vermilion


def reliability_diagrams(records: Records, baseline: Records | None, metric: Metric, directory: Path) -> dict[str, Path]:
    """Draw a diagram for each task into `directory`; the bins are those of the calibration error."""
    directory.mkdir(exist_ok=True)
    before = by_task(baseline) if baseline is not None else {}
    paths = {}
    for task, rows in by_task(records).items():
        asked = questions(rows, metric.normalization)
        series = {"quantized": (asked, QUANTIZED)} if baseline is not None else {"full precision": (asked, FULL)}
        if task in before:
            series = {"full precision": (questions(before[task], metric.normalization), FULL)} | series
        bins = bins_of(next(iter(series.values()))[0], metric)
        paths[task] = directory / f"reliability_{_file_name(task)}.png"
        _draw(task, series, bins, paths[task])
    return paths


def _draw(task: str, series: dict[str, tuple[Questions, str]], edges: Bins, path: Path) -> None:
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    figure = Figure(figsize=(4.4, 5.2), layout="constrained", dpi=110)
    top, bottom = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    top.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as right as sure")
    middles, widths = (edges.edges[:-1] + edges.edges[1:]) / 2, np.diff(edges.edges)
    for (label, (asked, colour)), marker, shift in zip(series.items(), "os", (-1, 1), strict=False):
        bins = reliability_diagram(asked.confidence, asked.correct, edges)
        some = bins.count > 0
        half = 1.96 * np.sqrt(bins.accuracy * (1 - bins.accuracy) / np.maximum(bins.count, 1))[some]
        x, y = bins.confidence[some], bins.accuracy[some]
        top.errorbar(x, y, half, color=colour, marker=marker, markersize=4, linewidth=1.3, elinewidth=0.7, label=label)
        bottom.bar(middles + shift * 0.2 * widths, bins.count, 0.4 * widths, color=colour)
    top.set(ylabel="share right", ylim=(-0.02, 1.02), title=task)
    bottom.set(xlabel="confidence", ylabel="questions", xlim=(0, 1))
    top.legend(loc="upper left", fontsize=8, frameon=False)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    figure.savefig(temporary, format="png")
    temporary.rename(path)


def _file_name(task: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in task)
