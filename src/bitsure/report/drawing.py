"""How every picture is made: no window, no state, few colours, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitsure.base.files import atomic_path, hash_json

FULL, QUANTIZED = "#0072B2", "#D55E00"  # Okabe & Ito (2008): blue and vermilion
COLOURS = 64  # of a picture, shades of its lines' edges included


def new_figure(rows: int, columns: int, width: float = 4.4, height: float = 5.2, margins: dict | None = None, **settings):
    """A figure and its axes, as matplotlib's `subplots` gives them; inches.

    margins: as `subplots_adjust` takes them; None: found by trying, which takes as long as the drawing.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    figure = Figure(figsize=(width, height), layout="none" if margins else "constrained", dpi=110)
    axes = figure.subplots(rows, columns, gridspec_kw=margins, **settings)
    for one in np.atleast_1d(axes).flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


class Sheets:
    """Figures by name, each for one picture after the other: to make axes and their ticks takes as long as to draw them."""

    def __init__(self):
        self._made = {}

    def clean(self, name: str, rows: int, columns: int, size: tuple[float, float], margins: dict, **settings):
        """The figure of that name and its axes, as `new_figure` gives them, with nothing drawn on them."""
        if name not in self._made:
            self._made[name] = new_figure(rows, columns, *size, margins, **settings)
        for axes in self._made[name][0].axes:
            for drawn in (
                axes.containers,
                axes.child_axes,
                axes.lines,
                axes.collections,
                axes.patches,
                axes.texts,
                axes.images,
            ):
                for one in list(drawn):
                    one.remove()
            if legend := axes.get_legend():
                legend.remove()
            axes.relim()
            axes.autoscale(True)
        return self._made[name]


def save(figure, path: Path, colours: int = COLOURS) -> Path:
    """As a PNG of few colours: a third of the bytes, and nothing that an eye would miss. Pillow comes with matplotlib.

    The octree takes a fifth of the time of Pillow's median cut, and zlib's usual level a fifth of that of its best.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    few = picture.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        few.save(temporary, format="png", compress_level=6)
    return path


def file_name(task: str) -> str:
    """The task's name if it is fit for a file, else as much of it as is, and a hash to tell it from others."""
    fit = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in task)[:80]
    return fit if fit == task else f"{fit}-{hash_json(task)[:8]}"


def plain(text: str) -> str:
    """Text in which nothing is taken for mathematics."""
    return text.replace("$", r"\$")
