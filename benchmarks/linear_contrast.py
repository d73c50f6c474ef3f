"""Contrasts of a sweep's cells, with draws (of the calibration text and of rotations) and questions as random effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from benchmarks.swept_cells import FULL_PRECISION, SweptCells
from bitsure.base.errors import UserError
from bitsure.comparison.changes import AnswerChanges
from bitsure.metrics.across import over_draws
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.bootstrap import resample_weights, t_interval

RESAMPLES, LEVEL = 2000, 0.95
FEW_UNITS = 20  # clusters of questions, documents or windows; below that the normal quantile is too small


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


def mean_over_tasks(cells: SweptCells, *parts: tuple[float, str, str]) -> list[Term]:
    """Return the terms of (factor, quantizer, text) in the mean over all tasks."""
    share = 1 / len(cells.tasks)
    return [Term(factor * share, quantizer, text, task) for factor, quantizer, text in parts for task in cells.tasks]


def effect_of(cells: SweptCells, terms: Sequence[Term], metric: str = "true_label_prob") -> Effect | None:
    """Return the sum of the terms; None where a quantizer has no finished cell, or no draw is common to all.

    Draws and questions, resampled by their clusters, are both random: see `across.over_draws`. The errors of tasks are
    taken for independent, as on a run's page: where they ask about the same people, the interval is too narrow.
    """
    quantized = [(term.quantizer, term.text) for term in terms if term.quantizer != FULL_PRECISION]
    seeds = cells.draws(quantized)
    if not seeds:
        return None
    values, variances, units = np.zeros(len(seeds)), np.zeros(len(seeds)), list[int]()
    for number, task in enumerate(dict.fromkeys(term.task for term in terms)):
        change, first = _sum(cells, [term for term in terms if term.task == task], seeds, metric)
        units.append(len(first if first.cluster is None else np.unique(first.cluster)))
        weights = resample_weights(len(first), RESAMPLES, number, first.cluster)
        values += change.mean(1)
        variances += ((change @ weights) / weights.sum(0)).var(1, ddof=1)
    return effect_over_draws(cells, quantized, values.tolist(), np.sqrt(variances).tolist(), min(units))


def effect_over_draws(
    cells: SweptCells, quantized: Sequence[tuple[str, str]], values: Sequence[float], errors: Sequence[float], units: int
) -> Effect:
    """Return the mean over draws of values with standard errors, and how sure it is.

    Args:
        cells: The cells.
        quantized: The quantizers and calibration texts that were compared.
        values: What each draw gave.
        errors: Their standard errors from the questions or documents.
        units: How many clusters of questions, documents or windows that is; below `FEW_UNITS` errors go by Student's t.
    """
    freedom = units - 1 if units < FEW_UNITS else math.inf
    if len(values) > 1:
        mean = over_draws(values, errors, LEVEL, freedom)
        ends = attrgetter("ci_low", "ci_high")
        p_value = _p_value(lambda level: ends(over_draws(values, errors, level, freedom)))
        return Effect(mean.value, *ends(mean), len(values), p_value)
    intervals = partial(t_interval, values[0], errors[0], freedom)
    return Effect(values[0], *intervals(LEVEL), int(any(map(cells.is_drawn, dict(quantized)))), _p_value(intervals))


def _sum(cells: SweptCells, terms: Sequence[Term], seeds: Sequence[int], metric: str) -> tuple[FloatArray, AnswerChanges]:
    """Return the terms' sum in each draw's questions, (seeds, questions), and the questions.

    Raises UserError if cells were asked other questions.
    """
    questions = cells.changes(terms[0].quantizer, terms[0].text, seeds[0], terms[0].task)
    total = np.zeros((len(seeds), len(questions)))
    for term in terms:
        for row, seed in enumerate(seeds):
            changes = cells.changes(term.quantizer, term.text, seed, term.task)
            if not np.array_equal(changes.question, questions.question):
                raise UserError(f"{term.task}: {term.quantizer} on {term.text} was asked other questions than others.")
            total[row] += term.factor * changes.values[metric]
    return total, questions


def _p_value(intervals: Callable[[float], tuple[float, float]]) -> float:
    """Return the p for which the interval of level 1 − p ends at 0; 1 for a value of 0, and without an interval."""

    def inner_end(p: float) -> float:
        """Return how far an interval's inner end is on the value's side of 0."""
        low, high = intervals(1 - p)
        return low if low + high > 0 else -high

    middle = sum(intervals(LEVEL))
    if middle == 0 or math.isnan(middle):
        return 1.0
    least = 1e-15
    return least if inner_end(least) > 0 else float(brentq(inner_end, least, 1))
