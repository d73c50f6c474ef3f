"""A number of a sweep with what it is of: the rows that statistics, figures and tables share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, fields
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from bitsure.config.derived_tasks import is_twin, original_task
from bitsure.metrics.metric_names import MACRO
from bitsure.sweep.report.cell_results import DONE
from bitsure.sweep.report.run_columns import RunColumns
from bitsure.sweep.report.sweep_table import SCHEMA

Key = TypeVar("Key", bound=Hashable)
# Random draws that a sweep may repeat.
CALIBRATION_SEEDS = "calibration seeds"
TRAINING_SEEDS = "training seeds"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow(RunColumns):
    """One number of a finished cell, or its mean over random draws."""

    task: str
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    standard_error: float | None
    n: int
    baseline: float | None  # the same metric in full precision
    delta: float | None  # value − baseline, on the same questions
    delta_ci_low: float | None
    delta_ci_high: float | None
    delta_standard_error: float | None
    tests: str | None  # primary or exploratory; None for a mean over draws
    p_adjusted: float | None
    significant: bool  # the primary test's adjusted p-value is below `metric.alpha`
    draws: dict[str, int] = field(default_factory=dict)  # kind of random draw → how many the row is the mean of
    delta_between_draws: float | None = None  # standard deviation of `delta` between the draws

    @property
    def star(self) -> str:
        """A star if the one confirmatory test is significant; a mean over seeds has no test."""
        return "*" if self.significant else ""

    @property
    def draws_label(self) -> str:
        """What the row is the mean of, such as `5 calibration seeds, 3 training seeds`; empty for one draw."""
        return ", ".join(f"{n} {kind}" for kind, n in self.draws.items())

    @property
    def questions(self) -> str:
        """What the run was asked, where runs may have been asked different questions."""
        tasks = f"mean over {self.mean_over}" if self.mean_over else "" if self.task == MACRO else self.task
        return ", ".join(filter(None, (tasks, self.conditions)))

    @property
    def single_model(self) -> str:
        """The model's name; empty for a mean over several models."""
        return "" if TRAINING_SEEDS in self.draws else self.model


COLUMNS = [column.name for column in fields(StudyRow) if column.name in SCHEMA.names]


def study_rows(table: pa.Table, metrics: Iterable[str], alpha: float) -> list[StudyRow]:
    """Return the finished cells' rows of some metrics.

    Args:
        table: sweep.parquet's rows.
        metrics: Names of metrics.
        alpha: Level of the primary test, in (0, 1).
    """
    wanted = pc.and_(pc.is_in(table["metric"], pa.array(list(metrics))), pc.equal(table["status"], DONE))
    rows = table.filter(pc.and_(wanted, pc.is_valid(table["value"]))).select(COLUMNS).to_pylist()
    return [StudyRow(**row, significant=_is_significant(row["tests"], row["p_adjusted"], alpha)) for row in rows]


def _is_significant(tests: str | None, p_adjusted: float | None, alpha: float) -> bool:
    return tests == "primary" and p_adjusted is not None and p_adjusted < alpha


def over_tasks(rows: list[StudyRow]) -> list[StudyRow]:
    """Return the rows of each run's mean over its tasks, and those of tasks that no such mean includes, nor as a twin."""
    means = [row for row in rows if row.task == MACRO]
    if any(not row.mean_over for row in means):  # all runs were asked the same tasks
        return means
    included = {(*_run(row), task) for row in means for task in row.mean_over.split(", ")}
    alone = [row for row in rows if row.task != MACRO and (*_run(row), row.task) not in included]
    return means + [row for row in alone if not (is_twin(row.task) and (*_run(row), original_task(row.task)) in included)]


def mean_in_words(rows: list[StudyRow]) -> str:
    """Return what rows are that do not say themselves what was asked, such as `mean over 4 tasks`."""
    n = max((row.n for row in rows if row.task == MACRO and not row.questions), default=0)
    return f"mean over {n} task{'s' * (n > 1)}" if n else "mean over each run's tasks"


def _run(row: StudyRow) -> tuple[Hashable, ...]:
    return row.series, row.parameters, row.single_model, row.label, row.calib_seed


def tasks_of(rows: list[StudyRow]) -> list[str]:
    """Return the tasks in their order on the page: the mean over tasks first."""
    tasks = sorted({row.task for row in rows})
    return [task for task in tasks if task == MACRO] + [task for task in tasks if task != MACRO]


def task_labels(tasks: list[str]) -> list[str]:
    """Return names without the prefix that all have in common up to a _, and the mean over tasks in words."""
    single = [task for task in tasks if task != MACRO]
    first = single[0].partition("_")[0] + "_" if single else ""
    common = first if len(single) > 1 and all(task.startswith(first) for task in single) else ""
    return ["all tasks" if task == MACRO else task.removeprefix(common) for task in tasks]


def grouped(rows: list[StudyRow], key: Callable[[StudyRow], Key]) -> dict[Key, list[StudyRow]]:
    """Return rows by a key, groups and rows in `RunColumns.order`, whatever the order of `rows`."""
    groups: dict[Key, list[StudyRow]] = {}
    for row in sorted(rows, key=lambda row: row.order):
        groups.setdefault(key(row), []).append(row)
    return groups
