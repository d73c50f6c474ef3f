"""The columns of sweep.parquet that tell runs apart, and what a run is called and where it stands by them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bitsure.config.labels import method_name
from bitsure.report.rounded import shipped_bytes
from bitsure.sweep.report.cell_results import FULL_PRECISION, CellResult
from bitsure.sweep.report.varying_settings import outside_quantizing, setting_label

IN_FULL_PRECISION = "full precision"  # what a model that is not quantized is called
COSTS = (
    "quantizing_seconds",
    "quantizing_peak_bytes",
    "scoring_tokens_per_second",
    "packed_tokens_per_second",
    "scoring_peak_bytes",
)


def parameter_count(n: int) -> str:
    """Return a number of parameters as models are named: 346K, 1.0M, 125M, 1.3B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n >= unit:
            return f"{n / unit:.1f}{name}" if n < 10 * unit else f"{n / unit:.0f}{name}"
    return str(n)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunColumns:
    """A model, a quantizer and their settings."""

    model: str
    series: str  # models of one kind in several sizes
    parameters: int | None
    training_seed: int | None
    quantizer: str
    method: str | None  # the quantizer without its bits; None for a cell that was not begun
    setting: str  # what else tells cells of one model and quantizer apart, calibration seeds aside
    asked: str | None  # what the command called the quantizer; its own name where that is not known; None in full precision
    quantizer_label: str  # `asked`, and the part of `setting` that is about quantizing
    conditions: str  # the part of `setting` that also matters in full precision, such as `task.num_fewshot=3`
    mean_over: str  # the tasks of a mean over tasks, where runs were asked different ones
    bits_per_weight: float | None
    bits_per_weight_coded: float | None  # after coding; None if there are no codes, or none were measured
    size_bytes: int | None  # `shipped_bytes`
    quantizing_seconds: float | None  # costs are those of the run that made the stored results
    quantizing_peak_bytes: int | None  # memory of the process, its libraries' too, while it quantized and verified
    scoring_tokens_per_second: float | None  # padding counted
    packed_tokens_per_second: float | None  # the same with packed kernels, and of full precision beside them
    scoring_peak_bytes: int | None
    calib_data: str | None
    calib_nsamples: int | None
    calib_seqlen: int | None
    calib_seed: int | None

    @property
    def is_full_precision(self) -> bool:
        """Whether the model is not quantized."""
        return self.quantizer == FULL_PRECISION

    @property
    def label(self) -> str:
        """What a run is called among those of its model."""
        return f"{self.quantizer_label}, {self.conditions}" if self.conditions else self.quantizer_label

    @property
    def method_label(self) -> str | None:
        """The quantizer's method, without its bits, and its setting."""
        return f"{self.method}, {self.setting}" if self.setting else self.method

    @property
    def size_label(self) -> str:
        """The series and the number of parameters; the model's name if it is a series of its own."""
        if self.parameters is None or self.series == self.model:
            return self.model
        return f"{self.series} {parameter_count(self.parameters)}"

    @property
    def quantizer_order(self) -> tuple[bool, str, float, str]:
        """Sort key: full precision first, then by method, wide quantizers first."""
        return not self.is_full_precision, self.method or "", -(self.bits_per_weight or 0), self.label

    @property
    def order(self) -> tuple[int, str, str, tuple[bool, str, float, str]]:
        """Sort key: small models first, of each the quantizers by `quantizer_order`."""
        return self.parameters or 0, self.series, self.model, self.quantizer_order


@dataclass(frozen=True, slots=True, kw_only=True)
class CellColumns(RunColumns):
    """The columns that are the same in all rows of a cell."""

    status: str


def cell_columns(cell: CellResult, varied: set[str]) -> CellColumns:
    """Return the columns of a cell; varied: the settings that tell cells of this sweep apart."""
    model, calib, quantization = cell.model, cell.config.get("calib", {}), cell.quantization
    quantizing = cell.costs.quantizing if cell.costs else None
    scoring = cell.costs.scoring_quantized if cell.costs else None
    outside = outside_quantizing(varied)
    columns = CellColumns(
        model=cell.model_name,
        series=(model.series if model else None) or series_of(cell.model_name),
        parameters=model.parameters if model else None,
        training_seed=model.training_seed if model else None,
        quantizer=cell.quantizer,
        method=_method(cell),
        setting=setting_label(cell, varied),
        quantizer_label=", ".join(filter(None, (cell.label, setting_label(cell, varied - outside)))),
        conditions=setting_label(cell, outside),
        mean_over="",
        bits_per_weight=quantization.bits_per_weight if quantization else None,
        bits_per_weight_coded=quantization.bits_per_weight_coded if quantization else None,
        size_bytes=shipped_bytes(quantization, model) if quantization else None,  # a server does not show its weights
        quantizing_seconds=quantizing.seconds if quantizing else None,
        quantizing_peak_bytes=quantizing.peak_memory_bytes if quantizing else None,
        scoring_tokens_per_second=scoring.tokens_per_second if scoring else None,
        packed_tokens_per_second=scoring.tokens_per_second if scoring and _has_packed_kernels(cell) else None,
        scoring_peak_bytes=scoring.peak_memory_bytes if scoring else None,
        calib_data=calib.get("name"),
        calib_nsamples=calib.get("nsamples"),
        calib_seqlen=calib.get("seqlen"),
        calib_seed=calib.get("seed"),
        asked=cell.label,
        status=cell.state,
    )
    return in_full_precision(cell, columns) if cell.quantizer == FULL_PRECISION else columns


def in_full_precision(cell: CellResult, columns: CellColumns) -> CellColumns:
    """Return the columns of a cell's model in full precision."""
    size, parameters = (cell.model.bytes_on_disk, cell.model.parameters) if cell.model else (None, None)
    scoring = cell.costs.scoring_full_precision if cell.costs else None
    return replace(
        columns,
        quantizer=FULL_PRECISION,
        method=FULL_PRECISION,
        setting=columns.conditions,
        quantizer_label=IN_FULL_PRECISION,
        bits_per_weight=8 * size / parameters if size and parameters else None,
        bits_per_weight_coded=None,
        size_bytes=size,
        quantizing_seconds=None,
        quantizing_peak_bytes=None,
        scoring_tokens_per_second=scoring.tokens_per_second if scoring else None,
        packed_tokens_per_second=scoring.tokens_per_second if scoring and _has_packed_kernels(cell) else None,
        scoring_peak_bytes=scoring.peak_memory_bytes if scoring else None,
        calib_data=None,
        calib_nsamples=None,
        calib_seqlen=None,
        calib_seed=None,
        asked=None,
    )


def _has_packed_kernels(cell: CellResult) -> bool:
    """Return whether a cell's quantized weights stayed packed; the speed of unpacked ones says nothing of a quantizer."""
    return cell.config.get("scoring", {}).get("dequantize") is False


def series_of(name: str) -> str:
    """Return a model's name without its size: opt-1.3b → opt, bloom-7b1 → bloom, llama-2-7b-chat → llama-2-chat."""
    return re.sub(r"[-_](\d+x)?\d+(\.\d+)?[kmbt]\d*(?=$|[-_])", "", name, flags=re.IGNORECASE) or name


def _method(cell: CellResult) -> str | None:
    return method_name(cell.quantizer, cell.config.get("quant", {}).get("bits")) if cell.config else None


def own_metrics(cells: Sequence[CellResult]) -> list[str]:
    """Return the names of the users' own metrics that finished cells have numbers of."""
    return sorted({str(name) for cell in cells if cell.done for name in cell.config.get("metric", {}).get("own") or ()})
