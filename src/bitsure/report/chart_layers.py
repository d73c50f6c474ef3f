"""Layers that charts are put together from: lines with intervals, bands, reference lines, fields of heat maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bitsure.base.plain_text import without_controls
from bitsure.report.charts import INK, Row, Series, Spec, table

# Okabe & Ito (2008): colours that the colour-blind can tell apart, without the yellow that a white page swallows
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")
QUANTIZED, FULL = COLOURS[:2]
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [14, 3], [8, 3, 2, 3, 2, 3])
FAINT = 0.45  # opacity of reference lines
DARK = 0.6  # of the range of a heat map's colours: from here on what is written on it is white


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


def lines(series: Sequence[Series], x: Spec, y: Spec) -> list[Spec]:
    """Return the layers of lines, as in `line_marks`; one legend names them where there are several.

    Args:
        series: The lines, all of them with points or none.
        x: The horizontal axis, see `number_axis`.
        y: The vertical axis.
    """
    colour, dash, shape = (_legend(series, what) for what in ("colour", "dash", "shape"))
    marks = line_marks(x, y, colour, dash, shape)
    rows = [row for line in series for row in line.labelled_rows]
    return [{"data": {"values": rows}, "layer": marks if series[0].shape else marks[:2]}]


def line_marks(x: Spec, y: Spec, colour: Spec, dash: Spec, shape: Spec) -> list[Spec]:
    """Return the layers of lines whose rows have `x`, `y`, `low`, `high` and `hover`: intervals, lines, points.

    Each mark's description begins with its line's label, by which a page hides it.

    Args:
        x: The horizontal axis, see `number_axis`.
        y: The vertical axis.
        colour: The encoding of colours.
        dash: That of dashes, of the field that holds the lines' labels.
        shape: That of the points' shapes; lines differ by its field too.
    """
    at = {"x": x | {"field": "x"}, "color": colour}
    label = {"description": {"field": dash["field"], "type": "nominal"}}
    hover = {"field": "hover", "type": "nominal"}
    with_ends = [{"filter": {"field": end, "valid": True}} for end in ("low", "high")]
    ends = {"y": y | {"field": "low"}, "y2": {"field": "high"}}
    joined = {"y": y | {"field": "y"}, "strokeDash": dash, "detail": {"field": shape["field"], "type": "nominal"}}
    point = {"y": y | {"field": "y"}, "shape": shape, "description": hover, "tooltip": hover}
    return [
        {"mark": _mark("rule", strokeWidth=1), "transform": with_ends, "encoding": at | ends | label},
        {"mark": _mark("line", strokeWidth=1.5), "encoding": at | joined | label},
        {"mark": _mark("point", filled=True, opacity=1, size=40), "encoding": at | point},
    ]


def _mark(kind: str, **settings: object) -> Spec:
    return {"type": kind, "aria": True, **settings}


def _legend(series: Sequence[Series], what: str) -> Spec:
    """Return the encoding of the lines' colours, shapes or dashes."""
    scale = {"domain": [line.label for line in series], "range": [getattr(line, what) for line in series]}
    return {"field": "line", "type": "nominal", "scale": scale} | ({} if len(series) > 1 else {"legend": None})


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


def category_axis(field: str, order: Iterable[str], title: str | None, **axis: object) -> Spec:
    """Return the encoding of the names in a field on an axis of a heat map.

    Args:
        field: The field.
        order: The names, from the left or the top.
        title: The axis's title.
        **axis: Vega-Lite's settings of the axis, such as `labelAngle`.
    """
    settings = {"domain": False, "ticks": False, "labelAngle": 0, **axis}
    return {"field": field, "type": "nominal", "sort": list(map(without_controls, order)), "title": title, "axis": settings}


def heat_layers(x: Spec, y: Spec, scale: Spec, *, written: bool = True) -> list[Spec]:
    """Return the layers of a heat map whose rows have `value`, `text` and `hover`: the fields and what stands on them.

    Args:
        x: The horizontal axis, see `category_axis`.
        y: The vertical axis.
        scale: Vega-Lite's settings of the colours, with the `domain`, from 0 or as far below it as above.
        written: Whether `text` is written on the fields.
    """
    at, hover = {"x": x, "y": y}, {"field": "hover", "type": "nominal"}
    colour = {"field": "value", "type": "quantitative", "scale": scale, "legend": None}
    fields: Spec = {"mark": _mark("rect"), "encoding": at | {"color": colour, "description": hover, "tooltip": hover}}
    ink = {"condition": {"test": f"abs(datum.value) > {DARK * scale['domain'][1]}", "value": "white"}, "value": "black"}
    text = {"mark": {"type": "text", "fontSize": 9}, "encoding": at | {"text": {"field": "text"}, "color": ink}}
    return [fields, text] if written else [fields]
