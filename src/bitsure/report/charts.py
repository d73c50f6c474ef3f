"""Charts: one Vega-Lite specification each, which makes the PNG, the page's picture and what is hovered there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bitsure.base.files import atomic_path, hash_json
from bitsure.base.plain_text import without_controls

if TYPE_CHECKING:
    from markupsafe import Markup

Spec: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, str | int | float | None]

VEGA_LITE = "6.4"
SCHEMA = f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE[0]}.json"
WIDTH = 244  # of a plot without its axis: four stand side by side on a wide page, one on a phone
SCALE = 2  # pixels of a PNG for each unit of a chart
PALETTE_SIZE = 64  # colours in a PNG, shades of the lines' edges included
DIGITS = 6  # significant, of a number in a specification
INK = "currentColor"  # the page's text colour, light or dark; black in a PNG
FONT = "sans-serif"
# what Vega writes of every mark; in an image, which has one text of its own, no part has a role
DEFAULT = re.compile(
    rf' (?:opacity="1"|stroke-width="1"|pointer-events="none"|font-family="{FONT}"|font-weight="normal"'
    r'|text-anchor="start"|transform="translate\(0,0\)"|aria-hidden="true"|(?:role|aria-roledescription)="[^"]*"'
    r'|class="[a-z -]*role-axis[a-z -]*")'
)
UNPAINTED = re.compile(r'<path class="(?:background|foreground)"(?![^>]* (?:fill|stroke)=)[^>]*/>')
CONFIG: Spec = {
    "background": None,
    "padding": 2,
    "font": FONT,
    "view": {"stroke": None},
    "title": {
        "color": INK,
        "anchor": "start",
        "fontSize": 13,
        "fontWeight": "bold",
        "subtitleColor": INK,
        "subtitleFontSize": 11,
    },
    "axis": {
        **dict.fromkeys(("domainColor", "gridColor", "labelColor", "tickColor", "titleColor"), INK),
        "gridOpacity": 0.12,
        "titleFontWeight": "normal",
        "aria": False,
        # looking for labels that are too long, too close or beyond the edge measures them all, which takes long
        **dict.fromkeys(("labelOverlap", "labelBound", "labelFlush"), False),
        "labelLimit": 0,
        "titleLimit": 0,
    },
    "legend": {"labelColor": INK, "titleColor": INK, "title": None, "orient": "top", "aria": False},
    "header": {"labelColor": INK, "titleColor": INK},
    "text": {"color": INK, "aria": False},
    **{mark: {"aria": False} for mark in ("line", "rule", "area", "tick")},
}


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: Its name in the legend.
        rows: Its points, in order: `x`, `y`, the interval's ends `low` and `high` (None for no interval), and `hover`, the text
            that hovering shows.
        colour: Of the line and its points.
        shape: Of the points; None for no points.
        dash: Lengths of the line's dashes and gaps.
    """

    label: str
    rows: list[Row]
    colour: str
    shape: str | None = "circle"
    dash: Sequence[int] = (1, 0)

    @property
    def labelled_rows(self) -> list[Row]:
        """Its points, with its label as `line`."""
        return [{"line": self.label, **row} for row in self.rows]


@dataclass(frozen=True)
class Chart:
    """A picture to be drawn.

    Attributes:
        spec: Its Vega-Lite specification, with the data. The channel `description` of a mark is what hovering over it shows.
        finding: What the picture shows, in a sentence; its alternative text.
        series: Its lines, for those who draw them by other means; empty for charts of other marks.
        x_title: What is on the horizontal axis of these.
    """

    spec: Spec
    finding: str
    series: Sequence[Series] = ()
    x_title: str = ""

    @property
    def html(self) -> Markup:
        """The picture for a page, with its alternative text."""
        from markupsafe import Markup

        return Markup(self.svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(self.finding), 1))

    @cached_property
    def svg(self) -> str:
        """The picture as an SVG element without background, in the colour of the text around it."""
        import vl_convert

        spec = {"$schema": SCHEMA, "config": CONFIG} | self.spec
        return _short(without_controls(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)))


@dataclass(frozen=True)
class DrawnChart:
    """A chart and the PNG of it; None where it is drawn on the page alone."""

    chart: Chart
    path: Path | None


Pictures: TypeAlias = dict[str, dict[str, DrawnChart]]
"""Kind → task or metric → chart."""


def _short(svg: str) -> str:
    """Return an SVG without what is not painted or is the default, and with two decimals: a third smaller, the same picture."""

    def shorten(tag: re.Match[str]) -> str:
        attributes = DEFAULT.sub("", tag[0])
        return re.sub(r' (?:d|transform)="[^"]*"', lambda places: re.sub(r"(\.\d\d)\d+", r"\1", places[0]), attributes)

    svg = re.sub(r"<[^>]*>", shorten, UNPAINTED.sub("", svg))
    return svg.replace("<svg ", f'<svg font-family="{FONT}" ', 1)


def save_png(chart: Chart, path: Path) -> DrawnChart:
    """Write a chart as a PNG on white with a small palette, which takes a tenth of the space of full colour.

    Args:
        chart: The chart.
        path: The file; it is written whole or not at all.
    """
    import vl_convert
    from PIL import Image
    from PIL.PngImagePlugin import PngImageFile

    white = chart.svg.replace(">", '><rect width="100%" height="100%" fill="white"/>', 1)
    picture = PngImageFile(BytesIO(vl_convert.svg_to_png(white, scale=SCALE))).convert("RGB")
    reduced = picture.quantize(PALETTE_SIZE, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        reduced.save(temporary, format="png", compress_level=6)
    return DrawnChart(chart, path)


def titled(task: str, spec: Spec, note: str = "") -> Spec:
    """Return a specification under a task's name and perhaps a note."""
    return {"title": {"text": without_controls(task), "subtitle": note, "limit": WIDTH + 30}} | spec


def table(columns: Mapping[str, Iterable[object]]) -> list[Row]:
    """Return columns as a chart's rows: text without control characters, numbers of few digits, None for what is not finite."""
    return [dict(zip(columns, map(_plain, values), strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(value: object) -> str | int | float | None:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return without_controls(value)
    number = float(value)  # type: ignore[arg-type]  # NumPy's own numbers
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None


def file_name(task: str) -> str:
    """Return a task's name as a file name: itself where possible, else its safe part and a hash that keeps it unique."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in task)[:80]
    return safe if safe == task else f"{safe}-{hash_json(task)[:8]}"
