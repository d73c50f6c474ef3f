"""A picture of a sweep: its panels, the keys that tell its lines apart, and the numbers in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bitsure.report.charts import CONFIG, WIDTH, Chart, DrawnChart, Spec, save_png
from bitsure.sweep.report.study_row import StudyRow

LEGEND_CHANNELS = ("color", "shape", "strokeDash")
LETTER_WIDTH, SYMBOL_WIDTH = 6, 30  # in a legend, the space beside them included

SYMBOLS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "triangle-down": "▼", "cross": "✚"}


@dataclass(frozen=True)
class LegendKey:
    """How the lines and points of one label are drawn."""

    label: str
    colour: str
    dash: Sequence[int]
    shape: str = ""  # of its points; empty where shapes tell models apart, or lines join the points

    @property
    def symbol(self) -> str:
        """The shape as a character; empty where it has none."""
        return SYMBOLS.get(self.shape, "")


@dataclass(frozen=True)
class Picture:
    """What is drawn of a sweep.

    Attributes:
        name: The file's name without its ending.
        title: Its heading.
        caption: What it shows and what that holds for.
        finding: What it shows of this sweep, in a sentence.
        panels: The panels; the legend of each is that of all.
        keys: The legend; empty where none is needed.
        rows: The rows that it shows.
        on_front: Which rows lie on the Pareto front; None where there is no front.
        columns: How many panels stand side by side in the PNG.
    """

    name: str
    title: str
    caption: str
    finding: str
    panels: list[Chart]
    keys: list[LegendKey]
    rows: list[StudyRow]
    on_front: list[bool] | None = None
    columns: int = 4

    @cached_property
    def page_panels(self) -> list[Chart]:
        """The panels as the page shows them, which has one legend for all."""
        return [Chart(_without_legends(panel.spec), panel.finding) for panel in self.panels]

    def save(self, folder: Path) -> DrawnChart:
        """Write all panels as one PNG into a folder."""
        together: Spec = {
            "concat": [panel.spec for panel in self.panels],
            "columns": self.columns,
            "spacing": 24,
            "config": CONFIG | {"legend": CONFIG["legend"] | self._legend},
        }
        return save_png(Chart(together, self.finding), folder / f"{self.name}.png")

    @property
    def _legend(self) -> Spec:
        """Vega-Lite's settings of a legend that is as wide as the panels and has every key, however many there are."""
        width = min(self.columns, len(self.panels)) * WIDTH
        longest = max((len(key.label) for key in self.keys), default=1)
        fitting = max(1, width // (LETTER_WIDTH * longest + SYMBOL_WIDTH))
        return {"columns": fitting, "symbolLimit": 0, "labelLimit": 0} if len(self.keys) > fitting else {"symbolLimit": 0}


def _without_legends(spec: Spec) -> Spec:
    """Return a specification in which no channel has a legend."""
    changed = dict(spec)
    for part in ("layer", "hconcat", "vconcat"):
        if part in spec:
            changed[part] = [_without_legends(inner) for inner in spec[part]]
    if "encoding" in spec:
        silent = {name: spec["encoding"][name] | {"legend": None} for name in LEGEND_CHANNELS if name in spec["encoding"]}
        changed["encoding"] = spec["encoding"] | silent
    return changed
