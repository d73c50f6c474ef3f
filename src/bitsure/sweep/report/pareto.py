"""What a size, a time or a speed buys: metrics against it, with the front of what nothing beats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitsure.report.drawing import new_figure, save
from bitsure.sweep.report.labels import groups, label, overall, size
from bitsure.sweep.report.panels import FILLS, MARKERS, colours_of, column, interval, legend, plain_ticks, styles_of
from bitsure.sweep.report.picture import Picture, numbers
from bitsure.sweep.report.sweep_statistics import STUDY

BETTER = {"accuracy": max, "true_label_prob": max, "expected_calibration_error": min}  # what a Pareto front is drawn of


@dataclass(frozen=True)
class Size:
    """What a Pareto front can be drawn against."""

    column: str
    unit: float
    axis: str
    picture: str
    title: str
    caption: str
    most: bool = False  # the larger the better


ON_DISK = Size(
    "size_bytes",
    1e6,
    "size on disk, MB",
    "pareto",
    "What a megabyte buys",
    "Size on disk is that of the model as it would be shipped: quantized weights at their bits per weight, scales counted, "
    "the rest as in full precision.",
)
CODED = Size(
    "bits_per_weight_coded",
    1,
    "bits per weight after coding",
    "coded",
    "Is the cheapest model to load also the least sure?",
    "Bits per weight after coding are what the best of zstd and an entropy coder makes of the codes, scales and zero points "
    "counted. A model that is as confident as before and less often right shows in the calibration error.",
)
QUANTIZING = Size(
    "quantizing_seconds",
    1,
    "seconds of quantizing",
    "quantizing_time",
    "What a second of quantizing buys",
    "Seconds are those that making the weights took on the machine that made them, with loading and measuring left out.",
)
SPEED = Size(
    "scoring_tokens_per_second",
    1,
    "tokens per second of scoring",
    "scoring_speed",
    "What speed costs",
    "Tokens per second are those of scoring here, padding counted, with weights in ordinary layers and activations, keys and "
    "values rounded by the way: not the speed of a deployed kernel.",
    most=True,
)
PARETO = (ON_DISK, CODED, QUANTIZING, SPEED)


def pareto(rows: list[dict], against: Size) -> Picture | None:
    """Accuracy, true-label probability and calibration error against size, with the front of what nothing beats."""
    rows = overall([row for row in rows if row["metric"] in BETTER and row[against.column]])
    if len({(row["model"], label(row)) for row in rows}) < 2:
        return None
    front = {id(row) for of in groups(rows, "metric").values() for row in _front(of, against)}
    marked = [row | {"on_front": id(row) in front} for row in rows]

    def draw(path: Path) -> Path:
        figure, grid = new_figure(1, len(BETTER), width=11, height=4.4)
        styles, markers = styles_of(rows), {one: MARKERS[i % len(MARKERS)] for i, one in enumerate(colours_of(rows))}
        for axes, metric in zip(grid, BETTER, strict=True):
            of = [row for row in marked if row["metric"] == metric]
            best = sorted((row for row in of if row["on_front"]), key=lambda row: row[against.column])
            sizes = [row[against.column] / against.unit for row in best]
            axes.step(
                sizes,
                column(best, "value"),
                where="pre" if against.most else "post",
                color="0.7",
                linewidth=4,
                zorder=0,
                label="front",
            )
            x, (low, high) = np.array([row[against.column] / against.unit for row in of]), interval(of)
            inks = [styles[label(row)]["color"] for row in of]
            axes.vlines(x, low, high, colors=inks, linewidth=0.7)
            for row, ink in zip(of, inks, strict=True):
                point = {"marker": markers[size(row)], "fillstyle": FILLS[styles[label(row)]["linestyle"]]}
                axes.plot(row[against.column] / against.unit, row["value"], color=ink, markersize=6, **point)
            axes.set(xscale="log", xlabel=against.axis, title=STUDY[metric])
            plain_ticks(axes, x=x.tolist())
        for one, style in styles.items():
            fill = FILLS[style["linestyle"]]
            grid[0].plot([], [], color=style["color"], marker="o", fillstyle=fill, linestyle="none", label=one)
        for mark, marker in markers.items():
            grid[0].plot([], [], color="0.4", marker=marker, linestyle="none", label=mark)
        legend(figure, [(grid[0], None)])
        return save(figure, path)

    cheaper = "faster" if against.most else "cheaper"
    caption = (
        f"{against.caption} On the grey line lies what nothing {cheaper} equals. Intervals hold for single points; neighbours "
        "whose intervals overlap may change places."
    )
    return Picture(against.picture, against.title, caption, numbers(marked, "on_front"), draw)


def _front(rows: list[dict], against: Size) -> list[dict]:
    """The rows that no row as cheap or cheaper (as fast or faster) equals."""
    better, best, front = BETTER[rows[0]["metric"]], None, []
    sign = -1 if against.most else 1
    for row in sorted(rows, key=lambda row: (sign * row[against.column], row["value"] if better is min else -row["value"])):
        if best is None or (row["value"] != best and better(row["value"], best) == row["value"]):
            best = row["value"]
            front.append(row)
    return front
