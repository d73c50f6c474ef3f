"""One quantized model against another one, on the questions that both were asked: the mean over tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from bitsure.base.errors import UserError
from bitsure.comparison import was_compared
from bitsure.comparison.changes import CHANGE_METRICS, in_common, read_changes, resampled_means
from bitsure.config.metric import MetricSettings
from bitsure.metrics.metric_names import MACRO
from bitsure.sweep.report.cell_results import CellResult

METRICS = CHANGE_METRICS


@dataclass(frozen=True)
class MeanContrast:
    """A mean over tasks with its interval."""

    value: float
    ci_low: float
    ci_high: float


def between(first: CellResult, second: CellResult) -> dict[str, MeanContrast]:
    """Return by how much more `second` changed each of METRICS than `first`.

    Questions are resampled with both models' answers, by their clusters, in each task separately; the interval of the mean
    over tasks is the normal one, as in comparison.json. Raises UserError if the two share no task.
    """
    metric = MetricSettings(**first.config["metric"])
    tasks = [task for task, numbers in first.comparison.items() if task != MACRO and was_compared(numbers)]
    tasks = [task for task in tasks if was_compared(second.comparison.get(task, {}))]
    if not tasks:
        raise UserError(f"{first.name} and {second.name} have no task in common.")
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    variances: dict[str, list[float]] = {name: [] for name in METRICS}
    for number, task in enumerate(tasks):
        both = in_common(*(read_changes(cell.directory / "changes.parquet", task) for cell in (first, second)))
        means, replicates = resampled_means(list(both), replace(metric, seed=metric.seed + number))
        for name in METRICS:
            values[name].append(means[name][1] - means[name][0])
            variances[name].append((replicates[name][:, 1] - replicates[name][:, 0]).var(ddof=1))
    return {name: _interval(values[name], variances[name], metric.confidence_level) for name in METRICS}


def _interval(values: list[float], variances: list[float], level: float) -> MeanContrast:
    value, error = float(np.mean(values)), float(np.sum(variances)) ** 0.5 / len(values)
    half = norm.ppf((1 + level) / 2) * error
    return MeanContrast(value, value - half, value + half)
