"""sweep.parquet: every number of a sweep in long form, the same bytes for the same cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.config.derived_tasks import is_repetition
from bitsure.metrics.metric_names import ECE, MACRO
from bitsure.metrics.multiple_testing import benjamini_hochberg, holm
from bitsure.results.measurement import Measurement, MetricsByTask
from bitsure.sweep.report.cell_results import FULL_PRECISION, CellResult
from bitsure.sweep.report.run_columns import COSTS, CellColumns, cell_columns, in_full_precision
from bitsure.sweep.report.varying_settings import TASKS, varying_settings

SCHEMA = pa.schema(
    [
        ("model", pa.string()),  # `RunColumns` says what these are
        ("series", pa.string()),
        ("parameters", pa.int64()),
        ("training_seed", pa.int64()),
        ("quantizer", pa.string()),
        ("asked", pa.string()),
        ("method", pa.string()),
        ("setting", pa.string()),
        ("quantizer_label", pa.string()),
        ("conditions", pa.string()),
        ("mean_over", pa.string()),
        ("bits_per_weight", pa.float64()),
        ("bits_per_weight_coded", pa.float64()),
        ("size_bytes", pa.int64()),
        ("quantizing_seconds", pa.float64()),
        ("quantizing_peak_bytes", pa.int64()),
        ("scoring_tokens_per_second", pa.float64()),
        ("packed_tokens_per_second", pa.float64()),
        ("scoring_peak_bytes", pa.int64()),
        ("calib_data", pa.string()),
        ("calib_nsamples", pa.int64()),
        ("calib_seqlen", pa.int64()),
        ("calib_seed", pa.int64()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("standard_error", pa.float64()),
        ("n", pa.int64()),
        ("baseline", pa.float64()),  # the same metric in full precision
        ("delta", pa.float64()),  # value − baseline, on the same questions
        ("delta_ci_low", pa.float64()),
        ("delta_ci_high", pa.float64()),
        ("delta_standard_error", pa.float64()),
        ("test", pa.string()),
        ("tests", pa.string()),  # primary (Holm over the sweep) or exploratory (Benjamini–Hochberg over the sweep)
        ("p_value", pa.float64()),
        ("p_adjusted", pa.float64()),
        ("effect", pa.string()),
        ("effect_size", pa.float64()),
        ("status", pa.string()),
    ]
)
CALIB = ("calib_data", "calib_nsamples", "calib_seqlen", "calib_seed")
# No two numbers have all of these in common.
KEYS = ("series", "parameters", "model", "training_seed", "quantizer", "setting", *CALIB, "task", "metric")
IN_OTHER_WORDS = ("quantizer_label", "conditions", "mean_over")
ADJUSTMENTS = {"primary": holm, "exploratory": benjamini_hochberg}


class NumberRow(NamedTuple):
    """The columns of one number; a cell that is not done has a row without any."""

    task: str | None = None
    metric: str | None = None
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    standard_error: float | None = None
    n: int | None = None
    baseline: float | None = None
    delta: float | None = None
    delta_ci_low: float | None = None
    delta_ci_high: float | None = None
    delta_standard_error: float | None = None
    test: str | None = None
    tests: str | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    effect: str | None = None
    effect_size: float | None = None


def build_table(cells: list[CellResult]) -> pa.Table:
    """Return a row for each number, and one without a number for each cell that is not done, in a fixed order.

    Raises:
        UserError: If two cells have different values for a number that the columns cannot tell apart.
    """
    varied, tables = varying_settings(cells), []
    for cell in cells:
        columns = cell_columns(cell, varied)
        tables += _tables(cell, list(_rows(cell)) if cell.done else [NumberRow()], columns, TASKS in varied)
        if cell.baseline:
            full_precision = in_full_precision(cell, columns)
            tables += _tables(cell, list(_measured(cell.baseline)), full_precision, TASKS in varied)
    table = pa.concat_tables(tables)
    table = table.sort_by([(key, "ascending") for key in (*KEYS, "status", "value")])
    return _adjusted(_without_repetitions(table))


def columns_of_cells(cells: list[CellResult]) -> list[CellColumns]:
    """Return for each cell the columns that are the same in all of its rows."""
    varied = varying_settings(cells)
    return [cell_columns(cell, varied) for cell in cells]


def write_table(table: pa.Table, path: Path) -> None:
    """Write sweep.parquet, whole or not at all.

    Costs are left out, because no two runs have the same ones: the same cells give the same bytes. So are the columns that
    `quantizer` and `setting` say in other words.
    """
    with atomic_path(path) as temporary:
        pq.write_table(table.drop_columns([*COSTS, *IN_OTHER_WORDS]), temporary, compression="zstd")


def _tables(cell: CellResult, rows: list[NumberRow], columns: CellColumns, tasks_differ: bool) -> list[pa.Table]:
    """Return rows of numbers; where cells have different tasks, a mean over tasks names its own in `setting`."""
    if not tasks_differ:
        return [_table(rows, columns)]
    means = [row for row in rows if row.task == MACRO]
    names = f"{TASKS}={','.join(cell.config.get('task', {}).get('names', ()))}" if means else ""
    columns_of_means = replace(
        columns, setting=" ".join(filter(None, (columns.setting, names))), mean_over=_tasks_of_mean(cell)
    )
    return [_table([row for row in rows if row.task != MACRO], columns), _table(means, columns_of_means)]


def _tasks_of_mean(cell: CellResult) -> str:
    """Return the tasks that a cell's mean is taken over: those with questions that have choices or written answers.

    Whole texts and continuations, of which nobody asks how sure an answer is, have no part in it, nor have twins of others.
    """
    return ", ".join(task for task in cell.tasks if ECE in cell.metrics[task] and not is_repetition(task, cell.tasks))


def _table(rows: list[NumberRow], columns: CellColumns) -> pa.Table:
    numbers: Mapping[str, Sequence[object]] = dict(zip(NumberRow._fields, zip(*rows, strict=True), strict=False))
    arrays = []
    for field in SCHEMA:
        if field.name in NumberRow._fields:
            arrays.append(pa.array(numbers.get(field.name, ()), field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(getattr(columns, field.name), field.type), len(rows)))
    return pa.table(arrays, SCHEMA)


def _rows(cell: CellResult) -> Iterator[NumberRow]:
    """Yield a cell's own numbers with their differences, then those that only a comparison has."""
    for row in _measured(cell.metrics):
        change = cell.comparison.get(str(row.task), {}).get(str(row.metric))
        full_precision = cell.baseline.get(str(row.task), {}).get(str(row.metric))
        baseline = full_precision.value if full_precision else None
        if change is None:
            yield row._replace(baseline=baseline)
            continue
        yield row._replace(
            baseline=change.baseline if "baseline" in change.model_fields_set else baseline,
            delta=change.value,
            delta_ci_low=change.ci_low,
            delta_ci_high=change.ci_high,
            delta_standard_error=change.standard_error,
            test=change.test,
            tests=change.family,
            p_value=change.p_value,
            effect=change.effect,
            effect_size=change.effect_size,
        )
    for task, differences in cell.comparison.items():
        for metric, change in differences.items():
            if metric not in cell.metrics.get(task, {}):
                yield _number(task, metric, change)._replace(
                    test=change.test,
                    tests=change.family,
                    p_value=change.p_value,
                    effect=change.effect,
                    effect_size=change.effect_size,
                )


def _measured(metrics: MetricsByTask) -> Iterator[NumberRow]:
    for task, values in metrics.items():
        for metric, measurement in values.items():
            yield _number(task, metric, measurement)


def _number(task: str, metric: str, number: Measurement) -> NumberRow:
    return NumberRow(task, metric, number.value, number.ci_low, number.ci_high, number.standard_error, number.n)


def _without_repetitions(table: pa.Table) -> pa.Table:
    """Return every number once.

    Full precision's numbers are in each cell that was compared with it, and two cells may share a task.
    """
    numbered = table.append_column("row", pa.array(np.arange(len(table)))).filter(pc.is_valid(table["metric"]))
    aggregates = [("row", "min"), ("value", "min"), ("value", "max")]
    groups = numbered.group_by(list(KEYS), use_threads=False).aggregate(aggregates)
    differ = pc.and_(pc.not_equal(groups["value_min"], groups["value_max"]), pc.not_equal(groups["quantizer"], FULL_PRECISION))
    if conflicts := groups.filter(differ).to_pylist():
        first = conflicts[0]
        raise UserError(
            f"{len(conflicts)} numbers of this sweep have two values, such as {first['metric']} of {first['task']} of "
            f"{first['model']} {first['quantizer']}: {first['value_min']:g} and {first['value_max']:g}. Two cells have the "
            "same settings, but not the same input: give the models other names (model.name=…), or make a sweep of each."
        )
    keep = pc.is_null(table["metric"]).to_numpy().copy()
    keep[groups["row_min"].to_numpy()] = True
    return table.filter(pa.array(keep))


def _adjusted(table: pa.Table) -> pa.Table:
    """Return the table with p-values adjusted over all tests of a kind in the sweep."""
    adjusted: list[float | None] = [None] * len(table)
    kinds, p_values = table["tests"].to_pylist(), table["p_value"].to_pylist()
    for kind, adjust in ADJUSTMENTS.items():
        rows = [i for i in range(len(table)) if kinds[i] == kind and p_values[i] is not None]
        for i, p in zip(rows, adjust([p_values[i] for i in rows]), strict=True):
            adjusted[i] = p
    place = table.column_names.index("p_adjusted")
    return table.set_column(place, "p_adjusted", pa.array(adjusted, pa.float64()))
