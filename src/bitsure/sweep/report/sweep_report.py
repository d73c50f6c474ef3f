"""A sweep's results in one object."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from bitsure.config.metric import MetricSettings
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.choices import ModelChoice
from bitsure.sweep.report.contrasts import Contrasts
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.study_row import StudyRow
from bitsure.sweep.report.sweep_statistics import ModelSpread


@dataclass(frozen=True)
class SweepReport:
    """The cells of a sweep's directory, what they show together, and where the files are."""

    directory: Path
    metric: MetricSettings  # the sweep's
    cells: list[CellResult]
    unplanned: list[str]  # directories of cells that are not of this sweep
    table: pa.Table  # sweep.parquet
    models: list[StudyRow]  # a row for each model, quantizer, task and metric, over calibration seeds
    spreads: list[ModelSpread]
    contrasts: Contrasts
    choices: list[ModelChoice]
    draws: list[StudyRow]  # the means over random draws
    pictures: list[Picture]
    tracked: str | None = None  # its W&B run's address, the command that sends it, or what is missing; None where there is none

    @property
    def page(self) -> Path:
        """Where sweep.html lies."""
        return self.directory / "sweep.html"

    def png(self, picture: Picture) -> Path:
        """Return where a picture lies."""
        return self.directory / "figures" / f"{picture.name}.png"

    @property
    def states(self) -> dict[str, int]:
        """State → how many cells have it."""
        return dict(Counter(cell.state_in_words for cell in self.cells))
