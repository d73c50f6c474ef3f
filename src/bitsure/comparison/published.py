"""Numbers that papers and their repositories print, to be shown beside what a run measured and never in its place.

published.csv has a row for each: the model by its name in conf/model; the bits of weights, of activations, and of keys and
values (16: none are quantized); group size (-1: a row, token or head; 0: a tensor) and symmetry of each, and the rounding of
the weights, empty where nothing is said; the harness's name of the task; the metric by its name here; the value as printed,
which is `scale` times the metric; its source, and what to know of it.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files

FULL = 16  # bits: not quantized
QLLM = "qllm"  # rounding: channels reassembled, weights tuned, then the nearest (Liu et al. 2024)


@dataclass(frozen=True)
class Row:
    """A row of published.csv; None where a cell is empty."""

    model: str
    setting: str
    weights: int
    activations: int
    kv: int
    group_size: int | None
    symmetric: bool | None
    activation_group: int | None
    activation_symmetric: bool | None
    kv_group: int | None
    kv_symmetric: bool | None
    rounding: str | None
    task: str
    metric: str
    value: float
    scale: float
    num_fewshot: int | None
    source: str
    note: str


@functools.cache
def rows() -> tuple[Row, ...]:
    """The whole table."""
    with files("bitsure.comparison").joinpath("published.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return tuple(Row(**{key: _READ[key](value) if value else None for key, value in line.items()}) for line in lines)


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


_WHOLE = dict.fromkeys(("weights", "activations", "kv", "group_size", "activation_group", "kv_group", "num_fewshot"), int)
_BOOLS = dict.fromkeys(("symmetric", "activation_symmetric", "kv_symmetric"), _bool)
_READ = dict.fromkeys(Row.__annotations__, str) | _WHOLE | _BOOLS | {"value": float, "scale": float}


def beside(provenance: dict | None, task: dict | None, metrics: dict, baseline: dict | None) -> list[dict]:
    """Every published number that a run has its own of: model, task, metric, bits and rounding are the same.

    provenance: provenance.json; task: the config's; metrics, baseline: metrics.json and baseline_metrics.json. Each found
    has `published` and `measured` (value, ci_low, ci_high) on the published scale, n, and what else is the `same` and what
    `differs`. Numbers of full precision stand beside a quantized run's baseline.
    """
    model = (provenance or {}).get("model", {}).get("name")
    made = (provenance or {}).get("weights")
    quantized = setting(made["quant"]) if made else None
    full = baseline if made else metrics
    found = []
    for row in (row for row in rows() if row.model == model):
        of_full = (row.weights, row.activations, row.kv) == (FULL, FULL, FULL)
        measured = (full if of_full else metrics if quantized and _is(row, quantized) else None) or {}
        one = measured.get(row.task, {}).get(row.metric)
        if one and one["value"] is not None:
            found.append(_beside(row, one, {} if of_full else quantized, task or {}))
    return found


def setting(quant: dict) -> dict | None:
    """The bits, rounding, group size and symmetry of a quantizer's settings; None for one that no row can be of.

    quant: its settings with `method`, as in provenance.json.
    """
    if quant["method"] not in ("rtn", "gptq", "kept") or quant.get("format", "int") != "int":
        return None
    at_run_time = {what: _bits(quant.get(what)) for what in ("activations", "kv")}
    for name, what in (("activation", "activations"), ("kv", "kv")):
        numbers = quant.get(what) or {}
        at_run_time |= {f"{name}_group": numbers.get("group_size"), f"{name}_symmetric": numbers.get("symmetric")}
    if quant["method"] == "kept":
        weights = dict.fromkeys(("rounding", "group_size", "symmetric")) | {"weights": FULL}
        return at_run_time | weights | {"transforms": quant["transforms"]}
    weights = {key: quant[key] for key in ("group_size", "symmetric", "transforms")}
    return at_run_time | weights | {"weights": quant["bits"], "rounding": _rounding(quant)}


def _rounding(quant: dict) -> str:
    """The method's name, or what rows call it together with its tuning."""
    if not quant.get("tuning"):
        return quant["method"]
    return QLLM if quant["transforms"] == ["reassemble"] else "tuned"


def _bits(numbers: dict | None) -> int | None:
    """Of activations, or keys and values; None for formats other than integers."""
    if numbers is None:
        return FULL
    return numbers["bits"] if numbers.get("format", "int") == "int" else None


def _is(row: Row, quantized: dict) -> bool:
    return all(quantized[key] == getattr(row, key) for key in ("weights", "activations", "kv", "rounding"))


def _beside(row: Row, one: dict, quantized: dict, task: dict) -> dict:
    same, differs = ["model by its name", "task", "bits"] + ([f"rounding {row.rounding}"] if row.rounding else []), []
    pairs = [(name, getattr(row, key), quantized.get(key)) for key, name in _NAMES.items()]
    pairs.append(("few-shot examples", row.num_fewshot, task.get("num_fewshot") or 0))
    for name, there, here in pairs:
        if there is not None and here is not None:
            (same if there == here else differs).append(f"{name} {here}" + ("" if there == here else f" instead of {there}"))
    if quantized.get("transforms") and row.rounding != QLLM:  # of which they are a part
        differs.append(f"after {' and '.join(quantized['transforms'])}")
    if task.get("limit"):
        differs.append(f"the first {task['limit']} questions alone")
    scaled = {key: None if one[key] is None else one[key] * row.scale for key in ("value", "ci_low", "ci_high")}
    about = {key: getattr(row, key) for key in ("model", "task", "metric", "setting", "scale", "source", "note")}
    return about | {"published": row.value, "measured": scaled, "n": one["n"], "same": same, "differs": differs}


_NAMES = {
    "group_size": "group size",
    "symmetric": "symmetric:",
    "activation_group": "activations' group size",
    "activation_symmetric": "activations symmetric:",
    "kv_group": "keys' and values' group size",
    "kv_symmetric": "keys and values symmetric:",
}
