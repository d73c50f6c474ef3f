"""Estimates as results: of one task, and the mean over tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from bitsure.config.derived_tasks import is_repetition
from bitsure.metrics.point_estimate import INFLUENCE, NO_INTERVAL, PointEstimate
from bitsure.metrics.resampling import Resampling
from bitsure.results.measurement import Measurement

M = TypeVar("M", bound=Measurement)


def summarize(kind: type[M], estimate: PointEstimate, n: int, resampling: Resampling, level: float, **fields: Any) -> M:
    """Return an estimate as a result that says what its interval resampled.

    Args:
        kind: The class of the result.
        estimate: The estimate.
        n: How many questions it is taken over.
        resampling: How the task's questions are resampled.
        level: The confidence level of the interval, in (0, 1).
        fields: Further fields of the result.
    """
    low, high = estimate.interval(level)
    has_interval = not estimate.method.startswith(NO_INTERVAL)
    basis = "influence" if estimate.method == INFLUENCE else "variance"
    source = resampling.unit if estimate.replicates is not None else f"none: the {basis} of {resampling.unit}"
    if resampling.n_clusters is not None:
        fields["n_clusters"] = resampling.n_clusters
    return kind(
        value=estimate.value,
        ci_low=low,
        ci_high=high,
        n=n,
        standard_error=estimate.standard_error,
        interval=estimate.method,
        resampled=source if has_interval else None,
        **fields,
    )


def macro_average(
    kind: type[M], estimates: dict[str, dict[str, PointEstimate]], results: Mapping[str, Mapping[str, M]]
) -> dict[str, M]:
    """Return the mean over the tasks that have a metric, tasks counting alike; empty for a single task.

    Twins of other tasks are left out. The errors of tasks are taken for independent: where they ask about the same people or
    passages, the interval is too narrow. There is an interval where every task has one.

    Args:
        kind: The class of the results.
        estimates: Task → metric → estimate, of what is averaged.
        results: The tasks' results, with their intervals.
    """
    means: dict[str, M] = {}
    counted = [task for task in estimates if not is_repetition(task, estimates)]
    if len(counted) < 2:
        return means
    for name in dict.fromkeys(name for task in counted for name in estimates[task]):
        tasks = [task for task in counted if name in estimates[task] and math.isfinite(estimates[task][name].value)]
        finite = [estimates[task][name] for task in tasks]
        if not finite:
            continue
        value = float(np.mean([of_task.value for of_task in finite]))
        intervals = [(results[task][name].ci_low, results[task][name].ci_high) for task in tasks]
        low, high = interval_of_mean([of_task.value for of_task in finite], intervals)
        means[name] = kind(
            value=value,
            ci_low=low,
            ci_high=high,
            n=len(finite),
            standard_error=math.sqrt(sum(of_task.standard_error**2 for of_task in finite)) / len(finite),
            interval="from the tasks' intervals",
            resampled="questions within tasks",
        )
    return means


def interval_of_mean(values: Sequence[float], intervals: Sequence[tuple[float | None, float | None]]) -> tuple[float, float]:
    """Return the interval of a mean of independent estimates.

    Args:
        values: The estimates.
        intervals: The interval of each. The ends of the mean's are NaN where one has none.

    Reference: Zou & Donner 2008 for an interval of a sum from the intervals of its terms.
    """
    mean = float(np.mean(values))
    below, above = np.sqrt(((np.array(intervals, dtype=float) - np.array(values)[:, None]) ** 2).sum(0)) / len(values)
    return mean - float(below), mean + float(above)
