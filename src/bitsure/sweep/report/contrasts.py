"""Model against model under one quantizer, and quantizer against quantizer on one model, on the same questions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations, product

from bitsure.base.errors import UserError
from bitsure.comparison import was_compared
from bitsure.comparison.changes import CHANGE_METRICS, AnswerChanges, in_common, resampled_means
from bitsure.config.metric import MetricSettings
from bitsure.metrics import across
from bitsure.metrics.metric_names import MACRO
from bitsure.sweep.report.cell_changes import CellChanges
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.run_columns import CellColumns
from bitsure.sweep.report.sweep_statistics import adjust
from bitsure.sweep.report.sweep_table import CALIB, columns_of_cells

SIMILAR_BITS = 0.5  # bits per weight by which quantizers of different methods may differ to be compared


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastKind:
    """The columns in which two runs that are contrasted differ, and those that they share."""

    name: str  # its table is tables/<name>.csv
    differ: tuple[str, ...]
    same: tuple[str, ...]
    similar_only: bool  # whether quantizers of different methods must have similar bits per weight

    def applies(self, first: CellColumns, second: CellColumns) -> bool:
        """Return whether two runs are contrasted in this way."""
        differs = any(getattr(first, key) != getattr(second, key) for key in self.differ)
        if not differs or any(getattr(first, key) != getattr(second, key) for key in self.same):
            return False
        return not self.similar_only or first.method == second.method or bits_apart(first, second) <= SIMILAR_BITS


MODELS = ContrastKind(name="contrasts", differ=("model",), same=("quantizer", "setting", *CALIB), similar_only=False)
QUANTIZERS = ContrastKind(
    name="contrasts_of_quantizers",
    differ=("quantizer", "setting"),
    same=("model", "training_seed", "conditions", *CALIB),
    similar_only=True,
)
KINDS = (MODELS, QUANTIZERS)


@dataclass(slots=True, kw_only=True)
class RunContrast:
    """By how much more the second run's mean of a metric changed than the first's."""

    kind: ContrastKind
    first: CellColumns
    second: CellColumns
    task: str
    metric: str
    n: int  # questions that both were asked
    value: float  # in the metric's unit
    ci_low: float
    ci_high: float
    standard_error: float
    p_value: float | None  # None without spread, and for a mean over seeds
    calib_seed: int | None  # None for a mean over seeds
    draws: int = 1  # calibration seeds that it is the mean over
    p_adjusted: float | None = None  # Benjamini–Hochberg over the contrasts of its kind; set by `adjust`

    @property
    def apart_from_seed(self) -> tuple[Hashable, ...]:
        """What contrasts have in common that differ by their calibration seed alone."""
        same = [getattr(self.first, key) for key in (*self.kind.same, *self.kind.differ) if key != "calib_seed"]
        return (*same, *(getattr(self.second, key) for key in self.kind.differ), self.task, self.metric)


@dataclass(frozen=True, slots=True)
class Contrasts:
    """All contrasts of a sweep."""

    models: list[RunContrast]
    quantizers: list[RunContrast]
    unreadable: list[str]  # cells whose changes.parquet is missing or damaged


def build_contrasts(cells: list[CellResult], metric: MetricSettings, cell_changes: CellChanges) -> Contrasts:
    """Contrast each two runs that one of KINDS applies to.

    Smaller models come first, and quantizers with the most similar bits per weight; quantizers of different methods are
    compared if these differ by at most SIMILAR_BITS. Questions are resampled together with all runs' answers, by their
    clusters. The task is the outer loop, so that its resamples are drawn once and only one task's changes are held at a time.
    Contrasts of a pair under several calibration seeds become one, their mean, with both random effects. p-values are adjusted
    by Benjamini–Hochberg, for each kind separately.

    Args:
        cells: All cells of a sweep.
        metric: The resamples, the seed and the level.
        cell_changes: What reads the cells' changes.
    """
    runs = [(cell, columns) for cell, columns in zip(cells, columns_of_cells(cells), strict=True) if cell.comparison]
    runs.sort(key=lambda run: _order(run[1]))
    tasks = sorted({task for cell, _ in runs for task in cell.comparison if task != MACRO and _compared(cell, task)})
    contrasts: dict[str, list[RunContrast]] = {kind.name: [] for kind in KINDS}
    unreadable: dict[str, None] = {}
    for task in tasks:
        runs_of_task = []
        for cell, columns in runs:
            if _compared(cell, task):
                try:
                    changes = cell_changes.read(cell.directory, task)
                except UserError:
                    unreadable[cell.name] = None
                else:
                    if len(changes.question):  # whole texts have no answers that could change
                        runs_of_task.append((columns, changes))
        for contrast in _contrasts(task, runs_of_task, metric):
            contrasts[contrast.kind.name].append(contrast)
    models, quantizers = (_over_seeds(contrasts[kind.name], metric.confidence_level) for kind in KINDS)
    quantizers.sort(key=lambda contrast: bits_apart(contrast.first, contrast.second))
    adjust(models)
    adjust(quantizers)
    return Contrasts(models, quantizers, list(unreadable))


def bits_apart(first: CellColumns, second: CellColumns) -> float:
    """Return by how many bits per weight two runs differ; infinite if unknown."""
    if first.bits_per_weight is None or second.bits_per_weight is None:
        return math.inf
    return abs(first.bits_per_weight - second.bits_per_weight)


def _compared(cell: CellResult, task: str) -> bool:
    return was_compared(cell.comparison.get(task, {}))


def _contrasts(task: str, runs: list[tuple[CellColumns, AnswerChanges]], metric: MetricSettings) -> Iterator[RunContrast]:
    """Yield one task's contrasts; nearly always all runs have the same questions, which are then resampled once for all."""
    groups: dict[bytes, list[int]] = {}
    for i, (_, change) in enumerate(runs):
        groups.setdefault(sha256(change.question.tobytes()).digest(), []).append(i)
    for members in groups.values():
        yield from _among([runs[i] for i in members], task, metric)
    for group, other_group in combinations(groups.values(), 2):
        for pair in product(group, other_group):
            (first, first_changes), (second, second_changes) = (runs[i] for i in sorted(pair))
            if _kind_of(first, second):
                common = in_common(first_changes, second_changes)
                if len(common[0].question):
                    yield from _among(list(zip((first, second), common, strict=True)), task, metric)


def _kind_of(first: CellColumns, second: CellColumns) -> ContrastKind | None:
    return next((kind for kind in KINDS if kind.applies(first, second)), None)


def _among(runs: list[tuple[CellColumns, AnswerChanges]], task: str, metric: MetricSettings) -> Iterator[RunContrast]:
    """Yield the contrasts of all pairs of runs that were asked the same questions."""
    columns = [run for run, _ in runs]
    pairs = {
        (i, j): kind for i, j in combinations(range(len(runs)), 2) if (kind := _kind_of(columns[i], columns[j])) is not None
    }
    n, units = len(runs[0][1]), runs[0][1].units
    if not pairs or units < 2:
        return
    means, replicates = resampled_means([change for _, change in runs], metric)
    for name in CHANGE_METRICS:
        results = across.contrasts(means[name], replicates[name], list(pairs), metric.confidence_level, units)
        for ((i, j), kind), result in zip(pairs.items(), results, strict=True):
            yield RunContrast(
                kind=kind,
                first=columns[i],
                second=columns[j],
                task=task,
                metric=name,
                n=n,
                value=result.value,
                ci_low=result.ci_low,
                ci_high=result.ci_high,
                standard_error=result.standard_error,
                p_value=result.p_value,
                calib_seed=columns[i].calib_seed,
            )


def _over_seeds(contrasts: list[RunContrast], level: float) -> list[RunContrast]:
    """Return the mean of contrasts that differ by their calibration seed alone, without a test, as all means over seeds."""
    groups: dict[tuple[Hashable, ...], list[RunContrast]] = {}
    for contrast in contrasts:
        groups.setdefault(contrast.apart_from_seed, []).append(contrast)
    return [_mean(group, level) if len(group) > 1 else group[0] for group in groups.values()]


def _mean(contrasts: list[RunContrast], level: float) -> RunContrast:
    values, errors = zip(*((contrast.value, contrast.standard_error) for contrast in contrasts), strict=True)
    mean = across.over_draws(values, errors, level)
    return replace(
        contrasts[0],
        value=mean.value,
        ci_low=mean.ci_low,
        ci_high=mean.ci_high,
        standard_error=mean.standard_error,
        p_value=None,
        calib_seed=None,
        draws=mean.draws,
    )


def _order(run: CellColumns) -> tuple[tuple[bool, float, str], ...]:
    """Return the sort key of runs; None comes last."""
    keys = (run.quantizer, run.setting, *(getattr(run, key) for key in CALIB), run.parameters, run.model)
    return tuple((key is None, key if isinstance(key, (int, float)) else 0, str(key)) for key in keys)
