"""Contrasts of a sweep's cells, with draws (of the calibration text and of rotations) and questions as random effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from bitsure.base.errors import UserError
from bitsure.comparison.changes import AnswerChanges, before_changes, read_changes
from bitsure.comparison.published_numbers import TEXT
from bitsure.config.report_settings import read_report_settings
from bitsure.metrics.across import over_draws
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.bootstrap import normal_interval, resample_weights
from bitsure.records import read_own_baseline, read_saved_run
from bitsure.records.joining import join
from bitsure.results import Provenance, read
from bitsure.sweep.report.cell_results import CellResult

RESAMPLES, LEVEL = 2000, 0.95
FULL_PRECISION = "full precision"
ALIKE = [("task", "limit"), ("text", "limit"), ("calib", "nsamples"), ("calib", "seqlen")]  # settings of all cells of a model


class Term(NamedTuple):
    """A part of a contrast: `factor` times what a quantizer, calibrated on a text, changes in a task's questions.

    With the quantizer FULL_PRECISION it is `factor` times what full precision gives, whatever the text.
    """

    factor: float
    quantizer: str
    text: str
    task: str


@dataclass(frozen=True)
class Effect:
    """A contrast with its interval, over `seeds` draws; 0 draws where nothing in the quantizers is drawn."""

    value: float
    ci_low: float
    ci_high: float
    seeds: int
    p_value: float
    """1 less the level of the interval that ends at 0."""


class SweptCells:
    """The finished cells of one model in a sweep over quantizers, calibration texts and seeds.

    Raises:
        UserError: If two cells have the same quantizer, text and seed, or cells were asked or calibrated differently.
    """

    def __init__(self, cells: Sequence[CellResult]) -> None:
        _check_alike(cells)
        self.model = cells[0].model_name
        self.tasks = [task for task in next(cell.tasks for cell in cells if cell.done) if not task.startswith(TEXT)]
        self.by_calibration: dict[str, dict[str, dict[int, CellResult]]] = {}  # quantizer → calibration text → seed → cell
        for cell in cells:
            option, calib = option_of(cell), cell.config["calib"]
            seeds = self.by_calibration.setdefault(option, {}).setdefault(calib["name"], {})
            if other := seeds.get(calib["seed"]):
                raise UserError(
                    f"{other.directory} and {cell.directory} have the same quantizer, quant={option}, "
                    f"calib.name={calib['name']} and calib.seed={calib['seed']}. Give each directory once; cells that differ "
                    "in other settings need options of their own."
                )
            seeds[calib["seed"]] = cell
        self.changes = cache(self._changes)

    def by_seed(self, quantizer: str, text: str) -> Mapping[int, CellResult]:
        """Return seed → cell; the one cell of a quantizer without data under its seed, whatever the text."""
        texts = self.by_calibration.get(quantizer, {})
        return texts.get(text, {}) or (next(iter(texts.values())) if not self.reads_text(quantizer) else {})

    def reads_text(self, quantizer: str) -> bool:
        """Return whether the quantizer was calibrated; True where no cell of it is done."""
        cells = (cell for seeds in self.by_calibration.get(quantizer, {}).values() for cell in seeds.values())
        return all(cell.quantization is None or cell.quantization.calib_data.windows for cell in cells)

    def is_drawn(self, quantizer: str) -> bool:
        """Return whether the quantizer depends on the seed, however few of its cells are done: it reads a text, or rotates."""
        cells = (cell for seeds in self.by_calibration[quantizer].values() for cell in seeds.values())
        return self.reads_text(quantizer) or any("rotate" in cell.config["quant"].get("transforms", ()) for cell in cells)

    def _changes(self, quantizer: str, text: str, seed: int, task: str) -> AnswerChanges:
        if quantizer == FULL_PRECISION:
            return self.before[task]
        return read_changes(self.cell(quantizer, text, seed).directory / "changes.parquet", task)

    @cached_property
    def before(self) -> dict[str, AnswerChanges]:
        """What full precision gives on the questions of each task."""
        cell = next(iter(next(iter(next(iter(self.by_calibration.values())).values())).values()))
        baseline = read_own_baseline(cell.directory)
        if baseline is None:
            raise UserError(f"{cell.directory} holds no full-precision records.")
        settings, _ = read_report_settings(cell.directory / "config.yaml")
        return before_changes(join(baseline.records, read_saved_run(cell.directory).records), settings)

    def effect(self, terms: Sequence[Term], metric: str = "true_label_prob") -> Effect | None:
        """Return the sum of the terms; None where a quantizer has no finished cell, or no draw is common to all.

        Draws and questions, resampled by their clusters, are both random: see `across.over_draws`. The errors of tasks are
        taken for independent, as on a run's page: where they ask about the same people, the interval is too narrow.
        """
        quantized = [(term.quantizer, term.text) for term in terms if term.quantizer != FULL_PRECISION]
        seeds = self.draws(quantized)
        if not seeds:
            return None
        values, variances = np.zeros(len(seeds)), np.zeros(len(seeds))
        for number, task in enumerate(dict.fromkeys(term.task for term in terms)):
            change, first = self._sum([term for term in terms if term.task == task], seeds, metric)
            weights = resample_weights(len(first), RESAMPLES, number, first.cluster)
            values += change.mean(1)
            variances += ((change @ weights) / weights.sum(0)).var(1, ddof=1)
        return self.effect_over_draws(seeds, quantized, values.tolist(), np.sqrt(variances).tolist())

    def draws(self, quantized: Sequence[tuple[str, str]]) -> list[int]:
        """Return the draws that quantizers on texts have in common; one that stands for all where nothing is drawn."""
        if not all(self.by_seed(*each) for each in quantized):
            return []
        drawn = [set(self.by_seed(*each)) for each in quantized if self.is_drawn(each[0])]
        return sorted(set.intersection(*drawn)) if drawn else [0]

    def cell(self, quantizer: str, text: str, seed: int) -> CellResult:
        """Return the cell of a draw; the one that there is of a quantizer in which nothing is drawn."""
        cells = self.by_seed(quantizer, text)
        return cells[seed] if self.is_drawn(quantizer) else next(iter(cells.values()))

    def effect_over_draws(
        self, seeds: Sequence[int], quantized: Sequence[tuple[str, str]], values: Sequence[float], errors: Sequence[float]
    ) -> Effect:
        """Return the mean over draws of values with standard errors, and how sure it is."""
        if len(seeds) > 1:
            mean = over_draws(values, errors, LEVEL)
            ends = attrgetter("ci_low", "ci_high")
            p_value = _p_value(lambda level: ends(over_draws(values, errors, level)))
            return Effect(mean.value, *ends(mean), len(seeds), p_value)
        intervals = partial(normal_interval, values[0], errors[0])
        return Effect(values[0], *intervals(LEVEL), int(any(map(self.is_drawn, dict(quantized)))), _p_value(intervals))

    def _sum(self, terms: Sequence[Term], seeds: Sequence[int], metric: str) -> tuple[FloatArray, AnswerChanges]:
        """Return the terms' sum in each draw's questions, (seeds, questions), and the questions.

        Raises UserError if cells were asked other questions.
        """
        questions = self.changes(terms[0].quantizer, terms[0].text, seeds[0], terms[0].task)
        total = np.zeros((len(seeds), len(questions)))
        for term in terms:
            for row, seed in enumerate(seeds):
                changes = self.changes(term.quantizer, term.text, seed, term.task)
                if not np.array_equal(changes.question, questions.question):
                    raise UserError(f"{term.task}: {term.quantizer} on {term.text} was asked other questions than others.")
                total[row] += term.factor * changes.values[metric]
        return total, questions

    def mean_over_tasks(self, *parts: tuple[float, str, str]) -> list[Term]:
        """Return the terms of (factor, quantizer, text) in the mean over all tasks."""
        share = 1 / len(self.tasks)
        return [Term(factor * share, quantizer, text, task) for factor, quantizer, text in parts for task in self.tasks]


def _check_alike(cells: Sequence[CellResult]) -> None:
    """Raise UserError if cells of one model differ in ALIKE."""
    first = cells[0]
    for cell in cells[1:]:
        for group, name in ALIKE:
            values = [each.config.get(group, {}).get(name) for each in (first, cell)]
            if values[0] != values[1]:
                raise UserError(
                    f"{first.directory} has {group}.{name}={values[0]} and {cell.directory} {values[1]}. One table needs the "
                    "same in all cells of a model: give the directories of one sweep."
                )


def option_of(cell: CellResult) -> str:
    """Return the option that a cell's quantizer was chosen by, which is the same for all its draws, also of recipes."""
    labels = read(cell.directory / "provenance.json", Provenance).labels
    return labels.preset if labels and labels.preset else cell.label


def _p_value(intervals: Callable[[float], tuple[float, float]]) -> float:
    """Return the p for which the interval of level 1 − p ends at 0; 1 for a value of 0, also where nothing varies."""

    def inner_end(p: float) -> float:
        """Return how far an interval's inner end is on the value's side of 0."""
        low, high = intervals(1 - p)
        return low if low + high > 0 else -high

    if sum(intervals(LEVEL)) == 0:
        return 1.0
    least = 1e-15
    return least if inner_end(least) > 0 else float(brentq(inner_end, least, 1))
