"""The line of a sweep's cell in the terminal: which of how many it is, its result, and the time that is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from bitsure.base.errors import UserError
from bitsure.base.progress import clock
from bitsure.comparison.verdict_words import outcome
from bitsure.config.labels import other_settings
from bitsure.report.terminal_summary import STYLES
from bitsure.results import Labels, SweepPlan, Verdict, read, read_if_there
from bitsure.results.run_files import state_in_words
from bitsure.run.directory import read_status


@dataclass(frozen=True)
class CellLine:
    """One cell among those of its sweep's plan.

    Attributes:
        run_dir: The cell's directory.
        sweep_dir: The sweep's.
        labels: What the command calls model and quantizer, and what else tells the cell from others, such as `task.limit=5`.
        number: Its place among the planned cells, from 1; None without a plan, under another sweeper than Hydra's own.
        total: How many cells are planned.
        repeats: The directory of the earlier cell that has this one's results; None for a cell that is to run.
    """

    run_dir: Path
    sweep_dir: Path
    labels: Labels
    number: int | None = None
    total: int = 0
    repeats: str | None = None

    @property
    def name(self) -> str:
        """The cell's place, model, quantizer and, where it is planned, what else tells it apart."""
        setting = " ".join(self.labels.settings) if self.number else ""
        place = f"cell {self.number} of {self.total}" if self.number else self.run_dir.name
        return f"{place}: {', '.join(filter(None, (self.labels.model, self.labels.quantizer, setting)))}"

    def done_before(self) -> Text:
        """Return the line of a cell whose finished run is there already."""
        return Text(f"{self.name}: done before")

    def ended(self, seconds: float) -> Text:
        """Return the line of a cell that has ended: its result, the time that it took, and about how much is left."""
        line = Text(f"{self.name}: ")
        line.append_text(self._result())
        line.append(f"; {clock(seconds)}")
        left = self._seconds_left()
        return line.append(f", about {clock(left)} left for the sweep") if left else line

    def _result(self) -> Text:
        status = read_status(self.run_dir)
        if status is not None and status.state == "skipped":
            return Text(f"skipped: {status.error}", "yellow")
        if status is None or status.state != "done":
            return Text(state_in_words(status.state, status.error) if status else "failed", "red")
        try:
            verdict = read_if_there(self.run_dir / "verdict.json", Verdict)
        except UserError as error:
            return Text(str(error), "red")
        return Text(outcome(verdict), STYLES[verdict.verdict]) if verdict else Text("done")

    def _seconds_left(self) -> float | None:
        """Return the time for the cells that are left, at the pace since the command began; None if that is not known."""
        plan_file = self.sweep_dir / "plan.json"
        if self.number is None:
            return None
        began = plan_file.stat().st_mtime
        statuses = [read_status(self.sweep_dir / cell.directory) for cell in read(plan_file, SweepPlan).cells]
        ended = [status and status.state != "running" and (status.started or 0) >= began for status in statuses]
        done_before = [status and status.state == "done" and not now for status, now in zip(statuses, ended, strict=True)]
        left = self.total - sum(map(bool, ended)) - sum(map(bool, done_before))
        return (time.time() - began) / sum(map(bool, ended)) * left if any(ended) else None


def cell_line(run_dir: Path, sweep_dir: Path, labels: Labels) -> CellLine:
    """Return a cell's line, with its place and labels by the sweep's plan if there is one that names it.

    Args:
        run_dir: The cell's directory.
        sweep_dir: The sweep's directory, which may hold plan.json.
        labels: What the cell's own command calls model and quantizer.
    """
    plan = read_if_there(sweep_dir / "plan.json", SweepPlan)
    cells = plan.cells if plan else []
    of_all = set.intersection(*(set(cell.overrides) for cell in cells)) if cells else set()
    for i, cell in enumerate(cells, 1):
        if (sweep_dir / cell.directory).resolve() == run_dir.resolve():
            own = {"settings": other_settings(cell.overrides, of_all)}
            return CellLine(run_dir, sweep_dir, (cell.labels or labels).model_copy(update=own), i, len(cells))
    earlier = {(sweep_dir / directory).resolve(): first for directory, first in plan.repeated.items()} if plan else {}
    return CellLine(run_dir, sweep_dir, labels, repeats=earlier.get(run_dir.resolve()))
