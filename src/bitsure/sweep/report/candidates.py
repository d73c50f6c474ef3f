"""The quantized models of a sweep that may be chosen, with what each lost on the same questions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bitsure.base.errors import UserError
from bitsure.comparison.changes import AnswerChanges, in_common, read_changes
from bitsure.comparison.choosing import TaskLosses
from bitsure.comparison.losses import is_above_guessing
from bitsure.metrics.metric_names import MACRO
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.run_columns import CellColumns
from bitsure.sweep.report.sweep_table import columns_of_cells


@dataclass
class Candidate:
    """A quantized model, which several cells may have asked different tasks."""

    cells: list[CellResult]
    columns: CellColumns
    label: str = ""
    changes: dict[str, AnswerChanges] = field(default_factory=dict)  # of the tasks that have accuracy

    @property
    def size(self) -> float:
        """Bytes on disk; bits per weight where they are unknown, which is so for all candidates of a model."""
        return self.columns.size_bytes or self.columns.bits_per_weight or math.inf


@dataclass
class ModelCandidates:
    """The candidates for one model.

    Attributes:
        label: The model's name, with the settings that tell several of its kind apart.
        candidates: Those that are judged, the smallest first.
        not_judged: What is not judged → why.
        tasks: Task → the candidates' losses, in their order.
        guessing: Tasks on which full precision is not above guessing, which have no part in the choice.
    """

    label: str
    candidates: list[Candidate]
    not_judged: dict[str, str]
    tasks: dict[str, TaskLosses]
    guessing: list[str]


def read_candidates(cells: Sequence[CellResult], max_bytes: int | None = None) -> list[ModelCandidates]:
    """Return each model's candidates, small models first.

    Args:
        cells: All cells of a sweep.
        max_bytes: The largest size on disk that may be chosen; None for any.

    Raises:
        UserError: If the candidates of a model have no question of a task in common.
    """
    groups: dict[tuple[object, ...], list[tuple[CellResult, CellColumns]]] = {}
    runs = list(zip(cells, columns_of_cells(list(cells)), strict=True))
    for cell, columns in sorted(runs, key=lambda run: run[1].order):
        if not columns.is_full_precision:
            key = (columns.model, columns.training_seed, columns.setting_in_full_precision)
            groups.setdefault(key, []).append((cell, columns))
    return [_candidates_of(members, max_bytes) for members in groups.values()]


def _candidates_of(runs: list[tuple[CellResult, CellColumns]], max_bytes: int | None) -> ModelCandidates:
    not_judged = {cell.name: cell.state for cell, _ in runs if not cell.done}
    by_settings: dict[tuple[object, ...], Candidate] = {}
    for cell, columns in runs:
        if cell.done:
            candidate = by_settings.setdefault((columns.label, columns.calib_seed), Candidate([], columns))
            candidate.cells.append(cell)
    repeated = Counter(label for label, _ in by_settings)
    candidates = []
    for candidate in by_settings.values():
        columns = candidate.columns
        several = repeated[columns.label] > 1
        candidate.label = f"{columns.label}, calib.seed={columns.calib_seed}" if several else columns.label
        if reason := _unfit(candidate, max_bytes) or _read_changes(candidate):
            not_judged[candidate.label] = reason
        else:
            candidates.append(candidate)
    tasks = list(dict.fromkeys(task for candidate in candidates for task in candidate.changes))
    guessing = [task for task in tasks if not _above_guessing(task, candidates)]
    judged = [task for task in tasks if task not in guessing]
    for candidate in candidates:
        if missing := [task for task in judged if task not in candidate.changes]:
            not_judged[candidate.label] = f"was not asked {', '.join(missing)}"
    candidates = [candidate for candidate in candidates if candidate.label not in not_judged]
    candidates.sort(key=lambda candidate: candidate.size)
    losses = {task: _losses(task, candidates) for task in judged if candidates}
    columns = runs[0][1]
    return ModelCandidates(
        " ".join(filter(None, (columns.model, columns.setting_in_full_precision))), candidates, not_judged, losses, guessing
    )


def _unfit(candidate: Candidate, max_bytes: int | None) -> str | None:
    """Return why a candidate's size rules it out; None where it does not."""
    size, model = candidate.columns.size_bytes, candidate.cells[0].model
    if max_bytes is not None and size is None:
        return "its size is unknown"
    if size is not None and max_bytes is not None and size > max_bytes:
        return f"{size:,} bytes are more than {max_bytes:,}"
    if size is not None and model is not None and model.bytes_on_disk is not None and size >= model.bytes_on_disk:
        return "is not smaller than full precision"
    return None


def _read_changes(candidate: Candidate) -> str | None:
    """Read what changed in each question of the tasks that have accuracy; return why there is nothing to judge, if so."""
    for cell in candidate.cells:
        for task, values in cell.comparison.items():
            if task == MACRO or "accuracy" not in values or task in candidate.changes:
                continue
            try:
                changes = read_changes(cell.directory / "changes.parquet", task)
            except UserError:
                return f"{cell.directory.name}/changes.parquet is missing or damaged"
            if len(changes):
                candidate.changes[task] = changes
    return None if candidate.changes else "has no task with accuracy"


def _above_guessing(task: str, candidates: Sequence[Candidate]) -> bool:
    """Return whether full precision's accuracy is above guessing; without choices to guess from, it always is."""
    values = [cell.comparison[task] for candidate in candidates for cell in candidate.cells if task in cell.comparison]
    return is_above_guessing(values[0])


def _losses(task: str, candidates: Sequence[Candidate]) -> TaskLosses:
    shared = candidates[0].changes[task]
    for candidate in candidates[1:]:
        shared, _ = in_common(shared, candidate.changes[task])
    if not len(shared):
        names = ", ".join(str(cell.directory) for candidate in candidates for cell in candidate.cells)
        raise UserError(
            f"{names}: no question of {task} is in all of them. Choose among runs that were asked the same questions."
        )
    of_each = [in_common(shared, candidate.changes[task])[1].values["accuracy"] for candidate in candidates]
    return TaskLosses(-np.stack(of_each, axis=1), shared.cluster)
