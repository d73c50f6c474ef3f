"""A picture of a sweep that has been drawn, and the numbers in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitsure.sweep.report.study_row import StudyRow


@dataclass(frozen=True)
class Picture:
    """A PNG with its title, its caption and the rows that it shows."""

    path: Path
    title: str
    caption: str
    rows: list[StudyRow]
    on_front: list[bool] | None = None  # which rows lie on the Pareto front; None where there is no front

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem
