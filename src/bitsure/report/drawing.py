"""Draw a sweep's figures without a window: their axes and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitsure.base.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def plain(text: str) -> str:
    """Return text that matplotlib draws as it stands, dollar signs included."""
    return text.replace("$", r"\$")
