"""Layers that charts are put together from: lines with intervals, bands, reference lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bitsure.report.charts import INK, Row, Series, Spec, table

# Okabe & Ito (2008): colours that the colour-blind can tell apart, without the yellow that a white page swallows
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")
QUANTIZED, FULL = COLOURS[:2]
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
FAINT = 0.45  # opacity of reference lines


def points(columns: Mapping[str, Iterable[object]], hover: Sequence[str]) -> list[Row]:
    """Return the rows of a `Series`: its columns `x`, `y` and perhaps `low` and `high`, and what hovering over each shows."""
    size = len(hover)
    return table({"low": [None] * size, "high": [None] * size} | dict(columns) | {"hover": hover})


def number_axis(title: str | None, scale: Spec | None = None, **axis: object) -> Spec:
    """Return the encoding of numbers on an axis.

    Args:
        title: The axis's title.
        scale: Vega-Lite's settings of the scale, such as its `domain`.
        **axis: Vega-Lite's settings of the axis, such as `tickCount`.
    """
    return {"type": "quantitative", "title": title, "scale": {"zero": False} | (scale or {}), "axis": axis}


def lines(series: Sequence[Series], x: Spec, y: Spec, panel: str = "") -> list[Spec]:
    """Return the layers of lines: intervals, lines and points.

    Classes of the k-th label's marks begin with `series<k>_`, by which a page hides them.

    Args:
        series: The lines; one legend names them.
        x: The horizontal axis, see `number_axis`.
        y: The vertical axis.
        panel: A name of letters and digits for each panel of a chart that has several.
    """
    layers: list[Spec] = []
    labels = list(dict.fromkeys(line.label for line in series))
    for line in series:
        at = {"x": x | {"field": "x"}, "y": y | {"field": "y"}, "color": _legend(series, line, "colour")}

        def add(mark: Spec, rows: list[Row], encoding: Spec, k: int = labels.index(line.label)) -> None:
            name = f"series{k}_{panel}{len(layers)}"
            layers.append({"name": name, "data": {"values": rows}, "mark": mark, "encoding": encoding})

        if with_ends := [row for row in line.rows if row["low"] is not None and row["high"] is not None]:
            add({"type": "rule"}, with_ends, at | {"y": y | {"field": "low"}, "y2": {"field": "high"}})
        if line.dash is not None:
            add({"type": "line"}, line.rows, at | {"strokeDash": _legend(series, line, "dash")})
        if line.shape is not None:
            hover = {"field": "hover", "type": "nominal"}
            on_point = {"shape": _legend(series, line, "shape"), "description": hover, "tooltip": hover}
            add({"type": "point", "filled": True, "opacity": 1, "size": 45}, line.rows, at | on_point)
    return layers


def _legend(series: Sequence[Series], line: Series, what: str) -> Spec:
    """Return the encoding of a line's colour, shape or dashes; a legend is drawn where there are several lines."""
    values = {other.label: getattr(other, what) for other in series if getattr(other, what) is not None}
    scale = {"domain": list(values), "range": list(values.values())}
    return {"datum": line.label, "type": "nominal", "scale": scale} | ({} if len(values) > 1 else {"legend": None})


def reference_line(ends: Sequence[tuple[float, float]], x: Spec, y: Spec) -> Spec:
    """Return a dashed line from the first point (x, y) to the last, which is compared with."""
    rows = table({"x": [point[0] for point in ends], "y": [point[1] for point in ends]})
    mark = {"type": "line", "color": INK, "opacity": FAINT, "strokeDash": [4, 3], "strokeWidth": 1}
    return {"data": {"values": rows}, "mark": mark, "encoding": {"x": x | {"field": "x"}, "y": y | {"field": "y"}}}


def band(rows: list[Row], x: Spec, y: Spec) -> Spec:
    """Return a grey band between `low` and `high` of rows with `x`."""
    mark = {"type": "area", "color": INK, "opacity": 0.15}
    at = {"x": x | {"field": "x"}, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    return {"data": {"values": rows}, "mark": mark, "encoding": at}
