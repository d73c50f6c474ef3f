"""The quantized models of a sweep that may be chosen, with what each lost on the same questions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce

import numpy as np

from bitsure.base.errors import UserError
from bitsure.comparison.changes import renumbered
from bitsure.comparison.choosing import TaskLosses
from bitsure.comparison.losses import is_above_guessing
from bitsure.comparison.verdict_labels import LABELS
from bitsure.config.derived_tasks import is_repetition
from bitsure.metrics.metric_names import MACRO
from bitsure.results.verdict import Decision
from bitsure.sweep.report.cell_changes import AnswerLosses, CellChanges
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.run_columns import CellColumns
from bitsure.sweep.report.sweep_table import columns_of_cells

NO_ACCURACY = "has no task with accuracy"
SMALLER = 0.99  # of full precision's bytes; a checkpoint's headers, which are no weights, take less than the rest


@dataclass
class Candidate:
    """A quantized model, which several cells may have asked different tasks."""

    cells: list[CellResult]
    columns: CellColumns
    label: str = ""
    losses: dict[str, AnswerLosses] = field(default_factory=dict)  # of the tasks that have accuracy

    @property
    def size(self) -> float:
        """Bytes on disk; bits per weight where they are unknown, which is so for all candidates of a model."""
        return self.columns.size_bytes or self.columns.bits_per_weight or math.inf

    @property
    def own_verdict(self) -> str:
        """What its cells' own verdicts are, on every metric and without allowing for the choice; empty where none is known."""
        return ", ".join(dict.fromkeys(cell.verdict.verdict for cell in self.cells if cell.verdict))

    def other_losses(self, verdict: Decision) -> list[str]:
        """Return the metrics besides accuracy on which a cell's own verdict is this one, in words."""
        verdicts = [cell.verdict.margins for cell in self.cells if cell.verdict]
        names = [name for margins in verdicts for name in margins if name != "accuracy" and margins[name].verdict == verdict]
        return [LABELS[name] for name in dict.fromkeys(names)]


@dataclass
class ModelCandidates:
    """The candidates for one model.

    Attributes:
        model: The model's name.
        conditions: The settings that tell several of its kind apart, such as `task.num_fewshot=3`; empty where none do.
        candidates: Those that are judged, the smallest first.
        not_judged: What is not judged → why.
        tasks: Tasks that the choice rests on.
        guessing: Tasks on which full precision is not above guessing, which have no part in the choice.
    """

    model: str
    conditions: str
    candidates: list[Candidate]
    not_judged: dict[str, str]
    tasks: list[str]
    guessing: list[str]

    @property
    def label(self) -> str:
        """The model's name, with the settings that tell several of its kind apart."""
        return f"{self.model}, {self.conditions}" if self.conditions else self.model


def read_candidates(
    cells: Sequence[CellResult], changes: CellChanges, max_bytes: int | None = None
) -> Iterator[ModelCandidates]:
    """Yield each model's candidates, small models first.

    Args:
        cells: All cells of a sweep.
        changes: What reads their changes.
        max_bytes: The largest size on disk that may be chosen; None for any.
    """
    groups: dict[tuple[str, str], list[tuple[CellResult, CellColumns]]] = {}
    runs = list(zip(cells, columns_of_cells(list(cells)), strict=True))
    for cell, columns in sorted(runs, key=lambda run: run[1].order):
        if not columns.is_full_precision:
            groups.setdefault((columns.model, columns.conditions), []).append((cell, columns))
    for members in groups.values():
        yield _candidates_of(members, changes, max_bytes)


def _candidates_of(runs: list[tuple[CellResult, CellColumns]], changes: CellChanges, max_bytes: int | None) -> ModelCandidates:
    not_judged = {cell.name: cell.state_in_words for cell, _ in runs if not cell.done}
    by_settings: dict[tuple[object, ...], Candidate] = {}
    for cell, columns in runs:
        if cell.done:
            candidate = by_settings.setdefault((columns.quantizer_label, columns.calib_seed), Candidate([], columns))
            candidate.cells.append(cell)
    repeated = Counter(label for label, _ in by_settings)
    candidates = []
    for candidate in by_settings.values():
        columns = candidate.columns
        label = columns.quantizer_label
        candidate.label = f"{label}, calib.seed={columns.calib_seed}" if repeated[label] > 1 else label
        if reason := _unfit(candidate, max_bytes) or _read_losses(candidate, changes):
            not_judged[candidate.label] = f"{reason}{candidate.own_verdict and f'; own verdict: {candidate.own_verdict}'}"
        else:
            candidates.append(candidate)
    tasks = list(dict.fromkeys(task for candidate in candidates for task in candidate.losses))
    guessing = [task for task in tasks if not _above_guessing(task, candidates)]
    judged = [task for task in tasks if task not in guessing]
    for candidate in candidates:
        if missing := [task for task in judged if task not in candidate.losses]:
            not_judged[candidate.label] = f"was not asked {', '.join(missing)}"
    candidates = [candidate for candidate in candidates if candidate.label not in not_judged]
    candidates.sort(key=lambda candidate: candidate.size)
    columns = runs[0][1]
    return ModelCandidates(
        model=columns.model,
        conditions=columns.conditions,
        candidates=candidates,
        not_judged=not_judged,
        tasks=judged,
        guessing=guessing,
    )


def _unfit(candidate: Candidate, max_bytes: int | None) -> str | None:
    """Return why a candidate's size rules it out; None where it does not."""
    size, model = candidate.columns.size_bytes, candidate.cells[0].model
    if max_bytes is not None and size is None:
        return "its size is unknown"
    if size is not None and max_bytes is not None and size > max_bytes:
        return f"{size:,} bytes are more than {max_bytes:,}"
    if size is not None and model is not None and model.bytes_on_disk is not None and size > SMALLER * model.bytes_on_disk:
        return "is not smaller than the full-precision checkpoint"
    return None


def _read_losses(candidate: Candidate, changes: CellChanges) -> str | None:
    """Read the losses on the tasks that have accuracy; return why there is nothing to judge, if so."""
    for cell in candidate.cells:
        for task, values in cell.comparison.items():
            is_counted = task != MACRO and not is_repetition(task, cell.comparison)
            if not is_counted or "accuracy" not in values or task in candidate.losses:
                continue
            try:
                losses = changes.losses(cell.directory, task)
            except UserError:
                return f"{cell.directory.name}/changes.parquet is missing or damaged"
            if len(losses.loss):
                candidate.losses[task] = losses
    return None if candidate.losses else NO_ACCURACY


def _above_guessing(task: str, candidates: Sequence[Candidate]) -> bool:
    """Return whether full precision's accuracy is above guessing; without choices to guess from, it always is."""
    values = [cell.comparison[task] for candidate in candidates for cell in candidate.cells if task in cell.comparison]
    return is_above_guessing(values[0])


def losses_in_common(task: str, candidates: Sequence[Candidate]) -> TaskLosses:
    """Return the candidates' losses on the questions of a task that all of them were asked; there may be none."""
    of_each = [candidate.losses[task] for candidate in candidates]
    question, cluster = of_each[0].question, of_each[0].cluster
    if all(losses.question is question for losses in of_each):
        return TaskLosses(np.stack([losses.loss for losses in of_each], axis=1).astype(float), cluster)
    shared = reduce(partial(np.intersect1d, assume_unique=True), [losses.question for losses in of_each])
    rows = [np.searchsorted(losses.question, shared) for losses in of_each]
    together = np.stack([losses.loss[places] for losses, places in zip(of_each, rows, strict=True)], axis=1).astype(float)
    return TaskLosses(together, None if cluster is None else renumbered(cluster[rows[0]]))
