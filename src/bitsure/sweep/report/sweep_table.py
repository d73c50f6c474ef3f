"""sweep.parquet: every number of a sweep in long form, the same bytes for the same cells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.metrics.measure import MACRO
from bitsure.metrics.significance import benjamini_hochberg, holm
from bitsure.sweep.report.cell_results import Cell

FULL = "none"  # the quantizer of full precision

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("series", pa.string()),  # models of one kind in several sizes
        ("parameters", pa.int64()),
        ("training_seed", pa.int64()),
        ("quantizer", pa.string()),
        ("method", pa.string()),  # the quantizer without its bits; null of a cell that was not begun
        ("setting", pa.string()),  # what else tells cells of one model and quantizer apart, calibration seeds aside
        ("bits_per_weight", pa.float64()),
        ("bits_per_weight_coded", pa.float64()),  # after coding; null where there are no codes, or none were measured
        ("size_bytes", pa.int64()),  # `size_on_disk`
        ("quantizing_seconds", pa.float64()),  # these four as they were when the store's results were made
        ("quantizing_peak_bytes", pa.int64()),  # memory of the process, its libraries' too
        ("scoring_tokens_per_second", pa.float64()),  # padding counted
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
CELL = ("series", "parameters", "model", "training_seed", "quantizer", "setting")
CELL += ("calib_data", "calib_nsamples", "calib_seqlen", "calib_seed")
KEYS = (*CELL, "task", "metric")  # no two numbers have all of these in common
NOT_OF_FULL = ("quant.", "control.", "calib.", "compress.")  # of no matter in full precision
# between cells that differ in these a setting differs by itself; the first that its name begins with counts
WITHIN = {
    "model.dtype": (),
    "model.": ("model",),
    "quant.": ("model", "quantizer"),
    "control.": ("model", "quantizer"),
    "calib.name": ("model", "quantizer"),
    "calib.": ("model", "quantizer", "calib"),
    "": (),
}
TASKS = "task.names"  # of what a mean over tasks is the mean
COSTS = ("quantizing_seconds", "quantizing_peak_bytes", "scoring_tokens_per_second", "scoring_peak_bytes")
ADJUST = {"primary": holm, "exploratory": benjamini_hochberg}


def build(cells: list[Cell]) -> pa.Table:
    """A row a number, and one without a number for each cell that is not done; in an order of their own.

    Raises UserError where two cells have other numbers for what the columns cannot tell apart.
    """
    varied, tables = _varied(cells), []
    for cell in cells:
        about = _about(cell, varied)
        tables += _tables(cell, list(_rows(cell)) if cell.done else [{}], about, varied)
        if cell.baseline:
            tables += _tables(cell, list(_numbers(cell.baseline)), about | _full_precision(cell, varied), varied)
    table = pa.concat_tables(tables)
    table = table.sort_by([(key, "ascending") for key in (*KEYS, "status", "value")])
    return _adjusted(_each_once(table))


def about(cells: list[Cell]) -> list[dict]:
    """Of each cell the columns that are the same for all of its rows; and of its setting what is not of quantizing."""
    varied = _varied(cells)
    return [_about(cell, varied) | {"other_than_quantizing": _full_precision(cell, varied)["setting"]} for cell in cells]


def write(table: pa.Table, path: Path) -> None:
    """The file, whole or not at all; without costs, which no two runs have alike: the same cells give the same bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(table.drop_columns(list(COSTS)), temporary, compression="zstd")


def size_on_disk(cell: Cell) -> int | None:
    """Bytes of the model as it would be shipped: quantized weights at their bits, the rest as before.

    Scales and zero points count. Not the size of a file of ours: backends differ in what they keep beside the quantized layers.
    """
    full, parameters = cell.model.get("bytes_on_disk"), cell.model.get("parameters")
    if not cell.proof or full is None:
        return full
    share = cell.proof["parameter_share"]
    return round(full * (1 - share) + parameters * share * cell.proof["bits_per_weight"] / 8)


def _tables(cell: Cell, rows: list[dict], about: dict, varied: set[str]) -> list[pa.Table]:
    """Rows of numbers; a mean over tasks says of which, where cells differ in that."""
    if TASKS not in varied:
        return [_table(rows, about)]
    means = [row for row in rows if row.get("task") == MACRO]
    names = f"{TASKS}={','.join(cell.config['task']['names'])}" if means else ""
    of_means = about | {"setting": " ".join(filter(None, (about["setting"], names)))}
    return [_table([row for row in rows if row.get("task") != MACRO], about), _table(means, of_means)]


def _table(rows: list[dict], about: dict) -> pa.Table:
    """Rows of numbers, each with the same columns `about` the cell."""
    numbers = pa.Table.from_pylist(rows, pa.schema([field for field in SCHEMA if field.name not in about]))
    columns = {name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), len(rows)) for name, value in about.items()}
    return pa.table([numbers[name] if name in numbers.column_names else columns[name] for name in SCHEMA.names], SCHEMA)


def _about(cell: Cell, varied: set[str]) -> dict:
    """The columns that are the same for all of a cell's rows."""
    model, calib, bits = cell.model, cell.config.get("calib", {}), cell.config.get("quant", {}).get("bits")
    about = {
        "model": cell.model_name,
        "series": model.get("series") or series_of(cell.model_name),
        "parameters": model.get("parameters"),
        "training_seed": model.get("training_seed"),
        "quantizer": cell.quantizer,
        "method": (cell.quantizer.replace(str(bits), "", 1) if bits else cell.quantizer) if cell.config else None,
        "bits_per_weight": cell.proof.get("bits_per_weight"),
        "bits_per_weight_coded": cell.proof.get("bits_per_weight_coded"),
        "size_bytes": size_on_disk(cell),
        **_costs(cell, "scoring_quantized"),
        "calib_data": calib.get("name"),
        "calib_nsamples": calib.get("nsamples"),
        "calib_seqlen": calib.get("seqlen"),
        "calib_seed": calib.get("seed"),
        "setting": _setting(cell, varied),
        "status": cell.state,
    }
    return about | (_full_precision(cell, varied) if cell.quantizer == FULL else {})


def _costs(cell: Cell, scoring: str) -> dict:
    """What quantizing and scoring took; None where that is not known, or nothing was quantized."""
    quantizing, scored = (cell.costs.get(key) or {} for key in ("quantizing", scoring))
    took = (quantizing.get("seconds"), quantizing.get("peak_memory_bytes"))
    return dict(zip(COSTS, (*took, scored.get("tokens_per_second"), scored.get("peak_memory_bytes")), strict=True))


def series_of(name: str) -> str:
    """A model's name without its size: opt-1.3b → opt, bloom-7b1 → bloom, llama-2-7b-chat → llama-2-chat."""
    return re.sub(r"[-_](\d+x)?\d+(\.\d+)?[kmbt]\d*(?=$|[-_])", "", name, flags=re.IGNORECASE) or name


def _full_precision(cell: Cell, varied: set[str]) -> dict:
    """The columns in which a model in full precision differs from a cell that quantizes it."""
    size, parameters = cell.model.get("bytes_on_disk"), cell.model.get("parameters")
    bits = 8 * size / parameters if size and parameters else None
    about = {
        "quantizer": FULL,
        "method": FULL,
        "setting": _setting(cell, {key for key in varied if not key.startswith(NOT_OF_FULL)}),
    }
    about |= {"bits_per_weight": bits, "bits_per_weight_coded": None, "size_bytes": size}
    about |= _costs(cell, "scoring_full_precision") | dict.fromkeys(COSTS[:2])
    return about | dict.fromkeys(("calib_data", "calib_nsamples", "calib_seqlen", "calib_seed"))


def _rows(cell: Cell) -> Iterator[dict]:
    """A cell's numbers: those of the run itself with their differences, then those that only a comparison has."""
    for number in _numbers(cell.metrics):
        task, metric = number["task"], number["metric"]
        change = cell.comparison.get(task, {}).get(metric)
        before = cell.baseline.get(task, {}).get(metric, {}).get("value")
        if change is None:
            yield number | {"baseline": before}
            continue
        yield number | {
            "baseline": change.get("baseline", before),
            "delta": change["value"],
            "delta_ci_low": change["ci_low"],
            "delta_ci_high": change["ci_high"],
            "delta_standard_error": change.get("standard_error"),
            **_test(change),
        }
    for number in _numbers(cell.comparison, without=cell.metrics):
        yield number | _test(cell.comparison[number["task"]][number["metric"]])


def _numbers(found: dict, without: dict | None = None) -> Iterator[dict]:
    for task, values in found.items():
        for metric, one in values.items():
            if metric not in (without or {}).get(task, {}):
                numbers = {key: one.get(key) for key in ("value", "ci_low", "ci_high", "standard_error", "n")}
                yield {"task": task, "metric": metric, **numbers}


def _test(one: dict) -> dict:
    columns = {key: one.get(key) for key in ("test", "p_value", "effect", "effect_size")}
    return columns | {"tests": one.get("family")}


def _varied(cells: list[Cell]) -> set[str]:
    """The settings that are not the same in all cells, or in all those that WITHIN compares."""
    known, varied = [cell for cell in cells if cell.config], set()
    for key in {key for cell in known for key in cell.settings}:
        within = next(of for prefix, of in WITHIN.items() if key.startswith(prefix))
        seen: dict[tuple, set[str]] = {}
        for cell in known:
            of = {"model": cell.model_name, "quantizer": cell.quantizer, "calib": cell.config.get("calib", {}).get("name")}
            if within or key in cell.settings:
                seen.setdefault(tuple(of[one] for one in within), set()).add(repr(cell.settings.get(key)))
        if any(len(values) > 1 for values in seen.values()):
            varied.add(key)
    names = [cell.config.get("task", {}).get("names") for cell in known]
    return varied | ({TASKS} if any(one != names[0] for one in names) else set())


def _setting(cell: Cell, varied: set[str]) -> str:
    return " ".join(f"{key}={cell.settings[key]}" for key in sorted(varied) if key in cell.settings)


def _each_once(table: pa.Table) -> pa.Table:
    """Every number once: full precision's are in each cell that was compared with it, and two cells may share a task."""
    numbered = table.append_column("row", pa.array(np.arange(len(table)))).filter(pc.is_valid(table["metric"]))
    wanted = [("row", "min"), ("value", "min"), ("value", "max")]
    found = numbered.group_by(list(KEYS), use_threads=False).aggregate(wanted)
    differ = pc.and_(pc.not_equal(found["value_min"], found["value_max"]), pc.not_equal(found["quantizer"], FULL))
    if twice := found.filter(differ).to_pylist():
        one = twice[0]
        raise UserError(
            f"{len(twice)} numbers of this sweep have two values, such as {one['metric']} of {one['task']} of {one['model']} "
            f"{one['quantizer']}: {one['value_min']:g} and {one['value_max']:g}. Two of its cells have the same settings, but "
            "not the same input: give the models other names (model.name=…), or make a sweep of each."
        )
    keep = pc.is_null(table["metric"]).to_numpy().copy()
    keep[found["row_min"].to_numpy()] = True
    return table.filter(pa.array(keep))


def _adjusted(table: pa.Table) -> pa.Table:
    """p-values adjusted over all of the sweep's tests of a kind."""
    adjusted: list[float | None] = [None] * len(table)
    kinds, p_values = table["tests"].to_pylist(), table["p_value"].to_pylist()
    for kind, adjust in ADJUST.items():
        rows = [i for i, one in enumerate(kinds) if one == kind and p_values[i] is not None]
        for i, p in zip(rows, adjust([p_values[i] for i in rows]), strict=True):
            adjusted[i] = p
    place = table.column_names.index("p_adjusted")
    return table.set_column(place, "p_adjusted", pa.array(adjusted, pa.float64()))
