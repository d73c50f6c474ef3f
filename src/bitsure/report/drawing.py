"""Draw figures without a window: their axes, intervals and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bitsure.base.files import atomic_path, hash_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL, QUANTIZED = "#0072B2", "#D55E00"  # blue and vermilion, which the colour-blind can tell apart (Okabe & Ito 2008)
PALETTE_SIZE = 64  # colours in a PNG, shades of the lines' edges included


def new_figure(
    rows: int,
    columns: int,
    width: float = 4.4,
    height: float = 5.2,
    margins: dict[str, float] | None = None,
    **settings: Any,
) -> tuple[Figure, Any]:
    """Return a new figure and its axes.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        width: Width in inches.
        height: Height in inches.
        margins: As for matplotlib's `subplots_adjust`; None to let matplotlib fit them, which takes as long as the drawing.
        **settings: What else matplotlib's `Figure.subplots` takes.

    Returns:
        The figure, and its axes as `Figure.subplots` returns them.
    """
    from matplotlib.figure import Figure  # not pyplot, which keeps global state and may want a window

    figure = Figure(figsize=(width, height), layout=None if margins else "constrained", dpi=110)
    axes = figure.subplots(rows, columns, gridspec_kw=margins, **settings)
    for one_axes in np.atleast_1d(axes).flat:
        one_axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


class ReusedFigures:
    """Figures that are drawn on again and again: making axes and their ticks takes as long as drawing them."""

    def __init__(self) -> None:
        self._figures: dict[str, tuple[Figure, Any]] = {}

    def blank(self, kind: str, create: Callable[[], tuple[Figure, Any]]) -> tuple[Figure, Any]:
        """Return the figure of a kind and its axes, with nothing drawn on them.

        Args:
            kind: The kind's name.
            create: Makes the figure and its axes the first time.
        """
        if kind not in self._figures:
            self._figures[kind] = create()
        figure, axes = self._figures[kind]
        for one_axes in figure.axes:
            _clear(one_axes)
        return figure, axes


def _clear(axes: Axes) -> None:
    """Remove what is drawn; axes, ticks and labels stay, unlike after `Axes.clear`."""
    drawn = (axes.child_axes, axes.lines, axes.collections, axes.patches, axes.texts, axes.images)
    for container in list(axes.containers):
        container.remove()
    for items in drawn:
        for item in list(items):
            item.remove()
    if legend := axes.get_legend():
        legend.remove()
    axes.relim()
    axes.autoscale(True)


def draw_intervals(axes: Axes, places: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str) -> None:
    """Draw vertical lines from the lower to the upper ends of intervals.

    Unlike error bars, an interval need not contain its value. Intervals that do not exist (NaN) are left out.

    Args:
        axes: Where to draw.
        places: The horizontal positions, shape (n,).
        low: The lower ends, shape (n,).
        high: The upper ends, shape (n,).
        colour: The lines' colour.
    """
    ends = np.array([places, low, high], dtype=float)
    x, bottom, top = ends[:, np.isfinite(ends).all(axis=0)]
    axes.vlines(x, bottom, top, color=colour, linewidth=0.8)


def save(figure: Figure, path: Path, colours: int = PALETTE_SIZE) -> Path:
    """Write a figure as a PNG with a small palette, a third of the size of full colour and with no visible difference.

    Pillow's octree takes a fifth of the time of its median cut, and zlib's usual level a fifth of its best.

    Args:
        figure: The figure.
        path: The file; it is written whole or not at all.
        colours: The size of the palette, 2 to 256.

    Returns:
        The same path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    reduced = picture.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        reduced.save(temporary, format="png", compress_level=6)
    return path


def file_name(task: str) -> str:
    """Return a task's name as a file name: itself where possible, else its safe part and a hash that keeps it unique."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in task)[:80]
    return safe if safe == task else f"{safe}-{hash_json(task)[:8]}"


def plain(text: str) -> str:
    """Return text that matplotlib draws as it stands, dollar signs included."""
    return text.replace("$", r"\$")
