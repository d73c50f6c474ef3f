"""What a sweep is about, in words: its models, quantizers and tasks, and its W&B runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from bitsure.report.tracked_run import OFFLINE, tracked_at
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.sweep_table import columns_of_cells

MOST_NAMED = 4  # models or quantizers in a title, and tasks in a line; more are counted


def sweep_title(cells: Sequence[CellResult]) -> str:
    """Return models × quantizers, in the order in which the command gave them."""
    columns = columns_of_cells(list(cells))
    models = _named((of_cell.model for of_cell in columns), "model")
    return f"{models} × {_named((of_cell.quantizer_label for of_cell in columns), 'quantizer')}"


def tasks_asked(cells: Sequence[CellResult]) -> str:
    """Return the tasks that cells have results of; empty where there are none yet."""
    tasks = list(dict.fromkeys(task for cell in cells for task in cell.tasks))
    named = f": {', '.join(tasks)}" if len(tasks) <= MOST_NAMED else ""
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}{named}" if tasks else ""


def send_command(directory: Path, cells: Sequence[CellResult]) -> str:
    """Return the command that sends the W&B runs of a sweep and its cells that were logged offline; empty where none was."""
    folders = (directory, *(cell.directory for cell in cells))
    offline = [folder for folder in folders if (tracked_at(folder) or "").startswith("wandb sync")]
    patterns = dict.fromkeys("" if folder == directory else "*/" for folder in offline)
    place = shlex.quote(str(directory.absolute()))
    return f"wandb sync {' '.join(f'{place}/{pattern}{OFFLINE}' for pattern in patterns)}" if patterns else ""


def _named(names: Iterable[str], kind: str) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(different) if len(different) <= MOST_NAMED else f"{len(different)} {kind}s"
