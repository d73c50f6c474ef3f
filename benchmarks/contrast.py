"""One quantized model against another one, on the questions that both were asked: the mean over tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from bitsure.base.errors import UserError
from bitsure.comparison import changes
from bitsure.comparison.compare import was_compared
from bitsure.config.schema import MetricSettings
from bitsure.metrics.measure import MACRO
from bitsure.sweep.report.cell_results import Cell

METRICS = changes.METRICS


def between(one: Cell, other: Cell) -> dict[str, dict]:
    """By how much more `other` changed each of METRICS than `one`: value, ci_low, ci_high.

    Questions are resampled with both models' answers, by their clusters, in each task for itself; the interval of the mean over
    tasks is the normal one, as in comparison.json. Raises UserError where the two share no task.
    """
    metric = MetricSettings(**one.config["metric"])
    tasks = [task for task, found in one.comparison.items() if task != MACRO and was_compared(found)]
    tasks = [task for task in tasks if was_compared(other.comparison.get(task, {}))]
    if not tasks:
        raise UserError(f"{one.name} and {other.name} were asked no task in common.")
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    variances: dict[str, list[float]] = {name: [] for name in METRICS}
    for number, task in enumerate(tasks):
        both = changes.in_common(*(changes.read(cell.directory / "changes.parquet", task) for cell in (one, other)))
        means, replicates = changes.resampled_means(list(both), replace(metric, seed=metric.seed + number))
        for name in METRICS:
            values[name].append(means[name][1] - means[name][0])
            variances[name].append((replicates[name][:, 1] - replicates[name][:, 0]).var(ddof=1))
    return {name: _interval(values[name], variances[name], metric.confidence_level) for name in METRICS}


def _interval(values: list[float], variances: list[float], level: float) -> dict:
    value, error = float(np.mean(values)), float(np.sum(variances)) ** 0.5 / len(values)
    half = norm.ppf((1 + level) / 2) * error
    return {"value": value, "ci_low": value - half, "ci_high": value + half}
