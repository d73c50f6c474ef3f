"""A picture of a sweep: accuracy, confidence and AUROC of each task against bits per weight.

`python -m benchmarks.sureness multirun/pocket_write docs/pocket_write.png` makes it from the sweep's sweep.parquet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from bitsure.report.chart_layers import COLOURS, DASHES, lines, number_axis, points
from bitsure.report.charts import Chart, Series, Spec, save_png, titled
from bitsure.report.metric_labels import metric_label

SHOWN = ("accuracy", "confidence", "auroc")
SHAPES = ("circle", "square", "diamond")
FULL_BITS = 16.0  # full precision's place on the axis
COLUMNS = ("task", "metric", "bits_per_weight", "value", "ci_low", "ci_high", "quantizer", "method")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    rows = pq.read_table(given.sweep / "sweep.parquet", columns=list(COLUMNS)).to_pylist()
    tasks = sorted({row["task"] for row in rows if row["metric"] == "confidence" and not row["task"].startswith("macro")})
    panels = [panel(task, [row for row in rows if row["task"] == task]) for task in tasks]
    save_png(Chart({"concat": panels, "columns": 2, "spacing": 16}, "Accuracy and confidence against bits."), given.picture)


def panel(task: str, rows: list[dict]) -> Spec:
    """One task: a line for each of SHOWN and each method, full precision at 16 bits."""
    ticks = sorted({round(row["bits_per_weight"] or FULL_BITS) for row in rows})
    x = number_axis("bits per weight", {"type": "log", "nice": False, "domain": [0.9 * ticks[0], 18]}, values=ticks, format="d")
    y = number_axis(None, {"domain": [0, 1]})
    methods = sorted({row["method"] for row in rows if row["bits_per_weight"]})
    series = [
        Series(f"{metric_label(metric)}, {method}", line(metric, method, rows), colour, shape, dash)
        for metric, colour, shape in zip(SHOWN, COLOURS, SHAPES, strict=False)
        for method, dash in zip(methods, DASHES, strict=False)
    ]
    return titled(task, {"width": 260, "height": 200, "layer": lines(series, x, y)})


def line(metric: str, method: str, rows: list[dict]) -> list:
    chosen = [row for row in rows if row["metric"] == metric and row["value"] is not None]
    chosen = [row for row in chosen if row["method"] == method or not row["bits_per_weight"]]
    chosen.sort(key=lambda row: row["bits_per_weight"] or FULL_BITS)
    columns = {"x": [row["bits_per_weight"] or FULL_BITS for row in chosen]}
    columns |= {end: [row[of] for row in chosen] for end, of in (("y", "value"), ("low", "ci_low"), ("high", "ci_high"))}
    return points(columns, [row["quantizer"] for row in chosen])


if __name__ == "__main__":
    main()
