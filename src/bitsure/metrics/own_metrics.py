"""Metrics of a user's own, which `metric.own` names.

A metric is a function that takes a `QuestionSet` of n questions. It returns a number of each question, shape (n,), whose mean
is the metric; or a `Statistic`. It is measured for both runs, compared, tested and reported as the others are.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bitsure.base.dotted_names import import_named
from bitsure.base.errors import UserError
from bitsure.base.files import hash_file
from bitsure.config.metric import MetricSettings
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.metric_registry import METRICS
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.statistic import Statistic, mean, proportion

Metric: TypeAlias = Callable[[QuestionSet], FloatArray | Statistic[QuestionSet]]


def own_metrics(settings: MetricSettings, *models: QuestionSet) -> dict[str, Statistic[Any]]:
    """Return the metrics of the user's own for the questions that one model answered, or two.

    Args:
        settings: Their names and functions, in `own`.
        models: The questions of each model. A function is called with them to see what it returns: the mean of zeros and ones
            alone is a proportion.

    Raises:
        UserError: If a function cannot be imported, returns another shape, or NaN for every question.
    """
    return {name: _as_statistic(name, path, models) for name, path in settings.own.items()}


def code_hashes(settings: MetricSettings) -> dict[str, str]:
    """Return the SHA-256 of the file that each own metric's function stands in, by the metric's name."""
    files = {name: _source_file(_import(name, path), path) for name, path in settings.own.items()}
    return {name: hash_file(Path(file)) for name, file in files.items() if file}


def _source_file(metric: Metric, path: str) -> str | None:
    """Return the file of a function; of another object that can be called, such as a partial, that of the module naming it."""
    has_file = inspect.isfunction(metric) or inspect.isclass(metric)
    return inspect.getsourcefile(metric if has_file else import_module(path.rpartition(".")[0]))


def check_own_metrics(settings: MetricSettings) -> None:
    """Check what can be known of the user's own metrics before anything is scored.

    The functions are called with a few made-up questions that have 2 to 5 choices.

    Raises:
        UserError: If a name is taken or unfit, a function cannot be imported, returns another shape, or NaN for every question.
    """
    if not settings.own:
        return
    example = _example()
    for name in settings.own:
        if not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise UserError(f"metric.own: the name {name!r} may have small letters, digits and underscores only.")
        if name in METRICS:
            raise UserError(f"metric.own.{name}: bitsure has a metric of this name. Choose another, such as own_{name}.")
    for name, path in settings.own.items():
        try:
            _as_statistic(name, path, [example])
        except Exception as error:
            error.add_note(f"metric.own.{name}={path} was called with four made-up questions of 2, 3, 4 and 5 choices.")
            raise


def _as_statistic(name: str, path: str, models: Sequence[QuestionSet]) -> Statistic[QuestionSet]:
    metric, where = _import(name, path), f"metric.own.{name}={path}"
    result = metric(models[0])
    if isinstance(result, Statistic):
        return result

    def values(questions: QuestionSet) -> FloatArray:
        return _checked(metric(questions), len(questions), where)

    numbers = [_checked(result, len(models[0]), where), *map(values, models[1:])]
    if np.isnan(numbers[0]).all():
        raise UserError(f"{where}: it returned NaN for all of {len(models[0]):,} questions.")
    return proportion(values) if np.isin(np.concatenate(numbers), (0, 1)).all() else mean(values)


def _checked(values: object, n: int, where: str) -> FloatArray:
    """Return a metric's values as an array, if there is one for each question."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where}: it returned no numbers but {type(values).__name__}; return an array of {n} numbers."
        ) from error
    if array.shape != (n,):
        raise UserError(f"{where}: it returned shape {array.shape} for {n} questions; return a number of each, shape ({n},).")
    return array


def _import(name: str, path: str) -> Metric:
    setting = f"metric.own.{name}"
    metric: Metric = import_named(path, setting)
    if not callable(metric):
        raise UserError(f"{setting}={path}: this is no function but {type(metric).__name__}.")
    return metric


def _example() -> QuestionSet:
    """Return made-up questions with 2, 3, 4 and 5 choices."""
    n_choices = np.arange(2, 6)
    starts = np.concatenate([[0], np.cumsum(n_choices)])
    gold = np.zeros(starts[-1], dtype=bool)
    gold[starts[:-1] + np.array([0, 1, 0, 1])] = True
    return QuestionSet(np.random.default_rng(0).normal(-10, 3, starts[-1]), gold, starts)
