"""What the pictures of a sweep have in common: colours and dashes of labels, lines with intervals, panels by task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bitsure.base.plain_text import without_controls
from bitsure.report.chart_layers import COLOURS, DASHES, SHAPES, line_marks, number_axis
from bitsure.report.charts import INK, Row, Series, Spec, table
from bitsure.report.tables import number
from bitsure.sweep.report.picture import LegendKey
from bitsure.sweep.report.run_columns import IN_FULL_PRECISION, parameter_count
from bitsure.sweep.report.study_row import StudyRow, grouped, task_labels, tasks_of

WIDTH, HEIGHT = 250, 190  # of a panel
MOST_PANELS = 12
MOST_TICKS = 4
SIZE_COLOURS = ("#8c6bb1", "#3b8bc2", "#21918c", "#4cae4f", "#c79a1c")  # from small to large; readable on white and on black
# a number of parameters as models are named: 346K, 1.0M
PARAMETERS = "replace(replace(format(datum.value, '.2~s'), 'k', 'K'), 'G', 'B')"


@dataclass(frozen=True)
class LinePoint:
    """A point of a line.

    Attributes:
        key: The label of its line, one of the legend's.
        line: What else tells lines of one label apart, by their points' shapes.
        x: Where it lies.
        y: How high; None for no number.
        low: The lower end of its interval; None for no interval.
        high: The upper end.
        hover: What hovering over it shows.
    """

    key: str
    line: str
    x: float
    y: float | None
    low: float | None
    high: float | None
    hover: str


def quantizer_keys(rows: Iterable[StudyRow], label_of: Callable[[StudyRow], str] = lambda row: row.label) -> list[LegendKey]:
    """Return a colour and dashes for each label of a quantizer."""
    labels = list(dict.fromkeys(label_of(row) for row in sorted(rows, key=lambda row: row.quantizer_order)))
    keys: list[LegendKey] = []
    for label in labels:
        full = label.startswith(IN_FULL_PRECISION)
        same = [key for key in keys if (key.colour == INK) == full]
        colour = INK if full else COLOURS[len(same) % len(COLOURS)]
        dash = DASHES[(len(same) if full else len(same) // len(COLOURS)) % len(DASHES)]
        keys.append(LegendKey(label, colour, dash))
    return keys


def point_keys(rows: Iterable[StudyRow]) -> list[LegendKey]:
    """Return a colour for each quantizer whose points no line joins, and a shape where all of them are of one model."""
    rows = list(rows)
    keys = quantizer_keys(rows, lambda row: row.quantizer_label)
    if len(sizes_of(rows)) > 1:
        return keys
    return [replace(key, shape=SHAPES[0 if key.colour == INK else DASHES.index(list(key.dash))]) for key in keys]


def size_keys(sizes: Sequence[str], others: Sequence[str] = ("",)) -> list[LegendKey]:
    """Return a colour for each size, violet for small ones, and dashes for what else tells lines apart."""
    last = max(len(sizes) - 1, 1)
    colours = [SIZE_COLOURS[round(i * (len(SIZE_COLOURS) - 1) / last)] for i in range(len(sizes))]
    return [
        LegendKey(", ".join(filter(None, (size, other))), colour, DASHES[k % len(DASHES)])
        for size, colour in zip(sizes, colours, strict=True)
        for k, other in enumerate(others)
    ]


def line_layers(points: Sequence[LinePoint], keys: Sequence[LegendKey], x: Spec, y: Spec, joined: bool = True) -> list[Spec]:
    """Return the layers of lines, as in `chart_layers.line_marks`.

    Args:
        points: The points of all lines.
        keys: The legend.
        x: The horizontal axis, see `number_axis`.
        y: The vertical axis.
        joined: Whether lines join the points.
    """
    lines = list(dict.fromkeys(without_controls(point.line) for point in points))
    domain = [without_controls(key.label) for key in keys]
    of_key = {"field": "key", "type": "nominal"}
    legend: Spec = {} if len(keys) > 1 else {"legend": None}
    colour = of_key | legend | {"scale": {"domain": domain, "range": [key.colour for key in keys]}}
    dash = of_key | legend | {"scale": {"domain": domain, "range": [list(key.dash) for key in keys]}}
    shape: Spec = {"field": "line", "type": "nominal", "scale": {"domain": lines, "range": _repeated(SHAPES, len(lines))}}
    shape |= {} if len(lines) > 1 else {"legend": None}
    if keys[0].shape:
        shape = of_key | legend | {"scale": {"domain": domain, "range": [key.shape for key in keys]}}
    rule, line, point = line_marks(x, y, colour, dash, shape)
    return [{"data": {"values": _rows(points)}, "layer": [rule, line, point] if joined else [rule, point]}]


def series_of(points: Sequence[LinePoint], keys: Sequence[LegendKey]) -> list[Series]:
    """Return the lines that points are joined to."""
    colours = {key.label: key.colour for key in keys}
    names = dict.fromkeys((point.key, point.line) for point in points)
    several = len({line for _, line in names}) > 1
    return [
        Series(
            f"{key}, {line}" if several and line not in key else key,
            _rows([point for point in points if (point.key, point.line) == (key, line)]),
            colours[key],
        )
        for key, line in names
    ]


def _rows(points: Sequence[LinePoint]) -> list[Row]:
    columns = ("key", "line", "x", "y", "low", "high", "hover")
    return table({name: [getattr(point, name) for point in points] for name in columns})


def _repeated(values: Sequence[str], n: int) -> list[str]:
    return [values[i % len(values)] for i in range(n)]


def panel(title: str, layers: Sequence[Spec], width: int = WIDTH, height: int = HEIGHT, subtitle: str = "") -> Spec:
    """Return a panel with its title."""
    below = {"subtitle": without_controls(subtitle)} if subtitle else {}
    return {
        "title": {"text": without_controls(title), "limit": width + 30, "fontSize": 12, **below},
        "width": width,
        "height": height,
        "layer": list(layers),
    }


def by_task(rows: list[StudyRow]) -> dict[str, list[StudyRow]]:
    """Return task's label → its rows, of the first tasks, the mean over tasks first."""
    tasks = tasks_of(rows)
    names = dict(zip(tasks, task_labels(tasks), strict=True))
    return {names[task]: [row for row in rows if row.task == task] for task in tasks[:MOST_PANELS]}


def tasks_left_out(rows: list[StudyRow]) -> str:
    """Return a sentence about the tasks that have no panel; empty where all have one."""
    n = len(tasks_of(rows))
    return f" The first {MOST_PANELS} of {n} tasks are drawn; the CSV has all." if n > MOST_PANELS else ""


def parameter_axis(rows: Iterable[StudyRow]) -> Spec:
    """Return the axis of numbers of parameters, with a tick at each size, or at few of them where they would overlap."""
    sizes = sorted({row.parameters for row in rows if row.parameters})
    ticks = sizes[:: -(-len(sizes) // MOST_TICKS)]
    scale = {"type": "log", "domain": [0.8 * sizes[0], 1.25 * sizes[-1]], "nice": False}
    return number_axis("parameters", scale, values=ticks, labelExpr=PARAMETERS, grid=False)


def with_interval(value: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    """Return a number with its interval as hovering shows it."""
    ends = "" if low is None or high is None else f" [{number(low, sign)}, {number(high, sign)}]"
    return f"{number(value, sign)}{ends}"


def sizes_of(rows: Iterable[StudyRow]) -> list[str]:
    """Return the labels of the sizes, small ones first."""
    return list(grouped(list(rows), lambda row: row.size_label))


def size_name(row: StudyRow) -> str:
    """Return a row's number of parameters as models are named."""
    return parameter_count(row.parameters) if row.parameters else row.model


def findings(parts: Mapping[str, str], most: int = 3) -> str:
    """Return the first of what there is to say of a picture's lines, as one text."""
    if not parts:
        return "no line has two points."
    some = list(parts.items())[:most]
    more = f" And {len(parts) - most} more." if len(parts) > most else ""
    return "; ".join(f"{name}: {text}" for name, text in some) + "." + more
