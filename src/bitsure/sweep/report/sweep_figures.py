"""A sweep's pictures, each with its numbers: what a study would print, drawn from sweep.parquet's rows alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitsure.metrics.question_pairs import STRATA
from bitsure.report.drawing import new_figure, plain, save
from bitsure.sweep.report.labels import groups, label, of_method, overall, short, size, star, tasks_of
from bitsure.sweep.report.panels import (
    MARKERS,
    MOST_PANELS,
    STYLES,
    bars,
    colours_of,
    column,
    interval,
    legend,
    panels_of,
    parameter_ticks,
    styles_of,
)
from bitsure.sweep.report.pareto import PARETO, pareto
from bitsure.sweep.report.picture import Picture, numbers
from bitsure.sweep.report.sweep_statistics import STUDY
from bitsure.sweep.report.sweep_table import FULL

MOST_WRITTEN = 600  # numbers in a heat map; of more the colours are what can be read
OVER_SIZES = ("true_label_prob", "accuracy", "expected_calibration_error", "confidence")
OVER_BITS = ("true_label_prob", "accuracy")
NAMES = (*(f"scale_{metric}" for metric in OVER_SIZES), *(f"bits_{metric}" for metric in OVER_BITS))
NAMES += ("heat_map", *(against.picture for against in PARETO), "shift_by_certainty")  # of all that there may be
SHIFT = tuple(f"{name}_stratum_{k}" for name in ("harm", "instability") for k in range(1, STRATA + 1))


def pictures(models: list[dict], sizes: list[dict]) -> list[Picture]:
    """Every picture that these rows allow; models: a row a model, task and metric; sizes: the same over training seeds."""
    found = [scale(sizes, metric) for metric in OVER_SIZES]
    found += [bits(sizes, metric) for metric in OVER_BITS]
    found += [heat(models), *(pareto(models, against) for against in PARETO), shift(sizes)]
    return [picture for picture in found if picture is not None]


def scale(rows: list[dict], metric: str) -> Picture | None:
    """A metric against the number of parameters, a line a quantizer; None unless there are two sizes of one series."""
    rows = [row for row in rows if row["metric"] == metric and row["parameters"]]
    if not any(len({row["parameters"] for row in of}) > 1 for of in groups(rows, "series").values()):
        return None

    def draw(path: Path) -> Path:
        figure, panels = panels_of(rows)
        styles = styles_of(rows)
        for axes, of_task in panels:
            for (series, one), line in groups(of_task, "series", label).items():
                line.sort(key=lambda row: row["parameters"])
                x, y, (low, high) = [row["parameters"] for row in line], column(line, "value"), interval(line)
                marker = MARKERS[sorted({row["series"] for row in rows}).index(series) % len(MARKERS)]
                axes.fill_between(x, low, high, color=styles[one]["color"], alpha=min(0.15, 0.5 / len(styles)), linewidth=0)
                axes.plot(x, y, marker=marker, markersize=4, linewidth=1.4, label=one, **styles[one])
            axes.set(xscale="log", xlabel="parameters")
            parameter_ticks(axes, {row["parameters"] for row in rows})
        legend(figure, panels)
        figure.supylabel(STUDY[metric], fontsize=10)
        return save(figure, path)

    caption = (
        "Every line is a quantizer, every marker a series of models. Bands are intervals: of the questions for one model, of "
        "questions and training seeds together where a size was trained more than once."
    )
    return Picture(f"scale_{metric}", f"{STUDY[metric].capitalize()} against size", caption, numbers(rows), draw)


def bits(rows: list[dict], metric: str) -> Picture | None:
    """The difference against bits per weight, a line a size and method; None unless there are two widths."""
    rows = [row for row in rows if row["metric"] == metric and row["quantizer"] != FULL]
    rows = [row for row in rows if row["bits_per_weight"] and row["delta"] is not None]
    if not any(len({row["bits_per_weight"] for row in of}) > 1 for of in groups(rows, "method", size).values()):
        return None

    def draw(path: Path) -> Path:
        figure, panels = panels_of(rows)
        colours = colours_of(rows)
        methods = list(dict.fromkeys(of_method(row) for row in rows))
        for axes, of_task in panels:
            axes.axhline(0, color="0.6", linewidth=1, linestyle="--")
            for (one, method), line in groups(of_task, size, of_method).items():
                line.sort(key=lambda row: row["bits_per_weight"])
                k = methods.index(method)
                x, y, (low, high) = column(line, "bits_per_weight"), column(line, "delta"), interval(line, "delta_")
                marks = {"marker": MARKERS[k % len(MARKERS)], "markersize": 4, "linestyle": STYLES[k % len(STYLES)]}
                axes.errorbar(x, y, bars(y, low, high), color=colours[one], linewidth=1.4, elinewidth=0.8, capsize=2, **marks)
            axes.set(xscale="log", xlabel="bits per weight")
            ticks = sorted({round(row["bits_per_weight"]) for row in rows})
            axes.set_xlim(0.9 * ticks[0], 1.1 * ticks[-1])
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        for one, colour in colours.items():
            panels[0][0].plot([], [], color=colour, linewidth=1.4, label=one)
        for k, method in enumerate(methods if len(methods) > 1 else ()):
            style = {"marker": MARKERS[k % len(MARKERS)], "linestyle": STYLES[k % len(STYLES)]}
            panels[0][0].plot([], [], color="0.4", label=method, **style)
        legend(figure, panels)
        figure.supylabel(f"change in {STUDY[metric]}", fontsize=10)
        return save(figure, path)

    caption = "Quantized − full precision on the same questions; scales and zero points count as bits. Bars are intervals."
    return Picture(f"bits_{metric}", f"What each bit buys: {STUDY[metric]}", caption, numbers(rows), draw)


def heat(rows: list[dict]) -> Picture | None:
    """The change in true-label probability, model × task, a panel a quantizer; where these are more, the other way round."""
    rows = [row for row in rows if row["metric"] == "true_label_prob" and row["delta"] is not None]
    if not rows:
        return None

    def draw(path: Path) -> Path:
        of_quantizers, of_models, tasks = groups(rows, label), groups(rows, "model"), tasks_of(rows)
        by_model = len(of_models) < len(of_quantizers)
        panels, others = (of_models, of_quantizers) if by_model else (of_quantizers, of_models)
        names = [name for (name,) in others]
        written = len(rows) <= MOST_WRITTEN
        wide, high = (0.72, 0.3) if written else (0.34, 0.2)
        columns = min(len(panels), max(1, int(11 / (wide * len(tasks) + 0.4))))
        lines = -(-len(panels) // columns)
        width, height = columns * (wide * len(tasks) + 0.4) + 1.8, lines * (high * len(names) + 1.1) + 0.3
        figure, grid = new_figure(lines, columns, width=max(width, 4), height=height, squeeze=False, sharey=True)
        most = max(abs(row["delta"]) for row in rows) or 1.0
        for axes in grid.flat:
            axes.set_visible(False)
        for axes, ((one,), of) in zip(grid.flat, panels.items(), strict=False):
            axes.set_visible(True)
            table = np.full((len(names), len(tasks)), np.nan)
            for row in of:
                i, j = names.index(label(row) if by_model else row["model"]), tasks.index(row["task"])
                table[i, j] = row["delta"]
                ink = "white" if abs(row["delta"]) > 0.6 * most else "black"
                if written:
                    axes.text(j, i, f"{row['delta']:+.3f}{star(row)}", ha="center", va="center", fontsize=7, color=ink)
            axes.imshow(table, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
            axes.set_xticks(range(len(tasks)), [plain(task) for task in short(tasks)], rotation=30, ha="right", fontsize=8)
            axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=8)
            axes.set_title(plain(one), fontsize=10)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        return save(figure, path, colours=256)

    caption = (
        "Change in the mean true-label probability. Orange: lost. * : significant by the study's paired t-test, Holm over all "
        "models, quantizers and tasks of this sweep. A star here and none there is no finding about the two: that is what the "
        "contrasts between models are for."
    )
    return Picture("heat_map", "Where it hurts: model × task", caption, numbers(rows), draw)


def shift(rows: list[dict]) -> Picture | None:
    """Harm and instability by the full model's own certainty, a panel a quantizer, a line a size."""
    rows = overall([row for row in rows if row["metric"] in SHIFT])
    if not rows:
        return None
    every = groups(rows, label)
    shown = dict(list(every.items())[:MOST_PANELS])

    def draw(path: Path) -> Path:
        colours, places = colours_of(rows), np.arange(1, STRATA + 1)
        figure, grid = new_figure(2, len(shown), width=1.2 + 2.5 * len(shown), height=5.4, squeeze=False, sharex=True)
        for k, ((one,), of) in enumerate(shown.items()):
            for axes, name in zip(grid[:, k], ("harm", "instability"), strict=True):
                axes.axhline(0, color="0.6", linewidth=1, linestyle="--")
                for (scale_,), line in groups(of, size).items():
                    points = {row["metric"]: row for row in line}
                    line = [points[key] for place in places if (key := f"{name}_stratum_{place}") in points]
                    x = [int(row["metric"].rpartition("_")[2]) for row in line]
                    y, (low, high) = column(line, "value"), interval(line)
                    axes.errorbar(
                        x, y, bars(y, low, high), color=colours[scale_], marker="o", markersize=3.5, linewidth=1.3,
                        elinewidth=0.7, capsize=2, label=scale_,
                    )  # fmt: skip
            grid[0, k].set_title(plain(one), fontsize=10)
            grid[1, k].set(xticks=places, xlabel="certainty: unsure → sure")
        grid[0, 0].set_ylabel("harm, nats")
        grid[1, 0].set_ylabel("instability, nats")
        legend(figure, [(axes, None) for axes in grid.flat])
        return save(figure, path)

    caption = (
        "Questions of each task in five equal parts by the full model's own certainty. Harm is the mean, instability the "
        "standard deviation of the change in the log-odds of the right answer (below 0: hurt), in which the softmax's slope "
        "has no part; the panels' axes differ. A slope is a finding only against noise of the same size, which control=noise "
        "adds to a run."
    )
    if len(shown) < len(every):
        caption += f" The first {len(shown)} of {len(every)} quantizers; the numbers are of all."
    return Picture("shift_by_certainty", "Are unsure questions hit harder?", caption, numbers(rows), draw)
