"""Numbers that papers and their repositories print, shown next to a run's own numbers, never instead of them.

Each row of published.csv is one number: the model by its name in conf/model; the bits of weights, of activations, and of keys
and values (16: not quantized); group size (−1: a row, token or head; 0: a tensor) and symmetry of each, and the rounding of the
weights, empty where the source does not say; the harness's name of the task, or `text/<name>/<protocol>`; the metric by its
name here; the value as printed, which is `scale` times the metric; where BOS stands in a text, in the words of
`TextOrigin.bos`, empty for tasks and where it is not known; its source, and what to know of it.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bitsure.results.measurement import Measurement, MetricsByTask
from bitsure.results.published import PublishedNumber, ScaledMeasurement
from bitsure.results.run_files import TextOrigin

FULL = 16  # bits: not quantized
QLLM = "qllm"  # rounding: channels reassembled, weights tuned, then the nearest (Liu et al. 2024)
TEXT = "text/"  # what the tasks of texts begin with: text/<name>/<protocol>
PUBLISHED_WINDOW = 2048  # tokens, of all rows of texts
METHODS = ("rtn", "gptq", "kept")  # quantizers that a row can be of
NEEDED = {"transforms"}  # settings without which a quantizer is not comparable
NEEDED_OF_WEIGHTS = NEEDED | {"bits", "group_size", "symmetric"}


@dataclass(frozen=True, kw_only=True)
class RoundingColumns:
    """The columns of published.csv about a quantizer.

    Bits are 16 where nothing is quantized, and None for formats other than integers; others are None where nothing is said.
    """

    weights: int
    activations: int | None
    kv: int | None
    group_size: int | None
    symmetric: bool | None
    activation_group: int | None
    activation_symmetric: bool | None
    kv_group: int | None
    kv_symmetric: bool | None
    rounding: str | None


@dataclass(frozen=True, kw_only=True)
class QuantizerSetting(RoundingColumns):
    """What a run's quantizer would have in those columns."""

    transforms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PublishedRow(RoundingColumns):
    """A row of published.csv; None where its cell is empty."""

    model: str
    setting: str
    task: str
    metric: str
    value: float
    scale: float
    num_fewshot: int | None
    bos: str | None
    source: str
    note: str

    @property
    def is_full_precision(self) -> bool:
        """Whether nothing is quantized."""
        return (self.weights, self.activations, self.kv) == (FULL, FULL, FULL)

    @property
    def is_text(self) -> bool:
        """Whether the number is of a text that is scored token by token."""
        return self.task.startswith(TEXT)

    def is_of(self, task: str) -> bool:
        """Return whether a run's task is the row's, or its text by whatever protocol."""
        return self.task == task or (self.is_text and self.task.rpartition("/")[0] == task.rpartition("/")[0])

    def matches(self, setting: QuantizerSetting) -> bool:
        """Return whether bits and rounding are those of a quantizer."""
        names = ("weights", "activations", "kv", "rounding")
        return all(getattr(self, name) == getattr(setting, name) for name in names)


@functools.cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Return the whole of published.csv."""
    with files("bitsure.comparison").joinpath("published.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return tuple(PublishedRow(**_parsed(line)) for line in lines)


def find_published(
    model: str | None,
    quant: Mapping[str, Any] | None,
    task: Mapping[str, Any],
    metrics: MetricsByTask,
    baseline: MetricsByTask | None,
    text: TextOrigin | None = None,
) -> list[PublishedNumber]:
    """Return every published number that a run has its own of: model, task, metric, bits and rounding are the same.

    Numbers of full precision stand beside a quantized run's baseline. A text's stand beside any protocol's.

    Args:
        model: The model's name.
        quant: The quantizer's settings with `method`, as in provenance.json; None in full precision.
        task: The task settings `num_fewshot` and `limit`; what is not there counts as null.
        metrics: The run's numbers.
        baseline: The numbers of full precision, where the run is of a quantized model.
        text: How the run's text was cut; None where it scored none, or does not say.
    """
    setting = quantizer_setting(quant) if quant else None
    full = baseline if quant else metrics
    numbers = []
    for row in published_rows():
        if row.model != model:
            continue
        if row.is_full_precision:
            measured, quantized = full, None
        elif setting and row.matches(setting):
            measured, quantized = metrics, setting
        else:
            continue
        for name, values in (measured or {}).items():
            own = values.get(row.metric)
            if own and own.value is not None and row.is_of(name):
                differs = _cut_differently(row, name, text) if row.is_text else _fewer_questions(task)
                numbers.append(_pair_with(row, name, own, quantized, task, differs))
    return numbers


def quantizer_setting(quant: Mapping[str, Any]) -> QuantizerSetting | None:
    """Return the bits, rounding, group size and symmetry of a quantizer; None for one that no row can be of.

    Args:
        quant: Its settings with `method`, as in provenance.json.
    """
    method = quant.get("method")
    if method not in METHODS or quant.get("format", "int") != "int":
        return None
    kept = method == "kept"
    if not (NEEDED if kept else NEEDED_OF_WEIGHTS) <= quant.keys():
        return None
    activations, kv = quant.get("activations") or {}, quant.get("kv") or {}
    return QuantizerSetting(
        weights=FULL if kept else quant["bits"],
        activations=_bits(activations),
        kv=_bits(kv),
        group_size=None if kept else quant["group_size"],
        symmetric=None if kept else quant["symmetric"],
        activation_group=activations.get("group_size"),
        activation_symmetric=activations.get("symmetric"),
        kv_group=kv.get("group_size"),
        kv_symmetric=kv.get("symmetric"),
        rounding=None if kept else _rounding(quant),
        transforms=tuple(quant["transforms"]),
    )


def _rounding(quant: Mapping[str, Any]) -> str:
    """Return the method's name, or what rows call it together with its tuning."""
    if not quant.get("tuning"):
        return str(quant["method"])
    return QLLM if quant["transforms"] == ["reassemble"] else "tuned"


def _bits(numbers: Mapping[str, Any]) -> int | None:
    """Return the bits of activations, or of keys and values; None for formats other than integers."""
    if not numbers:
        return FULL
    return numbers.get("bits") if numbers.get("format", "int") == "int" else None


def _pair_with(
    row: PublishedRow,
    measured_on: str,
    own: Measurement,
    quantized: QuantizerSetting | None,
    task: Mapping[str, Any],
    also_differs: list[str],
) -> PublishedNumber:
    same, differs = ["model by its name", "task", "bits"] + ([f"rounding {row.rounding}"] if row.rounding else []), []
    pairs = [(label, getattr(row, key), getattr(quantized, key, None)) for key, label in _LABELS.items()]
    pairs.append(("few-shot examples", row.num_fewshot, task.get("num_fewshot") or 0))
    for label, there, here in pairs:
        if there is None or here is None:
            continue
        if there == here:
            same.append(f"{label} {here}")
        else:
            differs.append(f"{label} {here} instead of {there}")
    if quantized and quantized.transforms and row.rounding != QLLM:  # which names its transforms
        differs.append(f"after {' and '.join(quantized.transforms)}")
    value, low, high = (None if end is None else end * row.scale for end in (own.value, own.ci_low, own.ci_high))
    return PublishedNumber(
        model=row.model,
        task=measured_on,
        metric=row.metric,
        setting=row.setting,
        scale=row.scale,
        source=row.source,
        note=row.note,
        published=row.value,
        measured=ScaledMeasurement(value=value, ci_low=low, ci_high=high),
        n=own.n,
        same=same,
        differs=differs + also_differs,
    )


def _fewer_questions(task: Mapping[str, Any]) -> list[str]:
    limit = task.get("limit")
    if not limit:
        return []
    return [f"the first {100 * limit:g}% of the questions alone" if limit < 1 else f"the first {limit} questions alone"]


def _cut_differently(row: PublishedRow, task: str, text: TextOrigin | None) -> list[str]:
    """Return how a run's text was cut otherwise than the row's source cuts it."""
    differs = []
    published, own = (name.rpartition("/")[2] for name in (row.task, task))
    if own != published:
        differs.append(f"the protocol {own} instead of {published}")
    if text and row.bos and text.bos != row.bos:
        differs.append(f"BOS {text.bos} instead of {row.bos}")
    if text and text.window != PUBLISHED_WINDOW:
        differs.append(f"windows of {text.window:,} tokens instead of {PUBLISHED_WINDOW:,}")
    if text and text.limit:
        differs.append(f"the first {text.limit:,} tokens alone")
    return differs


def _parsed(line: Mapping[str, str]) -> dict[str, Any]:
    return {key: _PARSERS.get(key, str)(text) if text else None for key, text in line.items()}


def _parse_bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


_PARSERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("weights", "activations", "kv", "group_size", "activation_group", "kv_group", "num_fewshot"), int),
    **dict.fromkeys(("symmetric", "activation_symmetric", "kv_symmetric"), _parse_bool),
    "value": float,
    "scale": float,
}
_LABELS = {
    "group_size": "group size",
    "symmetric": "symmetric:",
    "activation_group": "activations' group size",
    "activation_symmetric": "activations symmetric:",
    "kv_group": "keys' and values' group size",
    "kv_symmetric": "keys and values symmetric:",
}
