"""Answer from finished runs: is the model that is cheapest to load also the least sure?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.metrics.metric_names import ECE, MACRO
from bitsure.records.directory_kinds import refuse_sweep
from bitsure.results import Measurement, MetricsByTask, Provenance, Quantization, read, read_if_there

SURENESS = {
    "confidence": "confidence",
    "true_label_prob": "true-label prob.",
    "accuracy": "accuracy",
    ECE: "calibration error",
}
COLUMNS = ("model", "quantizer", "bits", "after coding", "entropy", "load time", *SURENESS.values())


@dataclass(frozen=True)
class SizeAndSureness:
    """The size of a run's quantized model, and how sure it is of its answers."""

    model: str
    quantizer: str
    bits: float
    """Bits per weight as stored."""
    coded_bits: float
    """Bits per weight after entropy coding."""
    code_entropy: float
    """Bits per code."""
    load_seconds: float
    numbers: dict[str, Measurement]
    """Metric → its number on the task that is shown; all of SURENESS."""
    questions: dict[str, int]
    """Task → how many questions were scored."""


def report_compressibility(directories: Sequence[Path], task: str | None = None) -> None:
    """Print a row of each run in Markdown, the cheapest of each model first, and each model's answer.

    Args:
        directories: Finished runs of quantized models whose codes were measured.
        task: The task whose numbers are shown; None for a run's only one, or the mean over its tasks.

    Raises:
        UserError: As `read_run`, or if a run is given twice or is a copy of another.
    """
    console = terminal.console()
    runs = [read_run(directory, task) for directory in directories]
    for i, run in enumerate(runs):
        if (first := runs.index(run)) < i:
            raise UserError(f"{directories[i]} has the same results as {directories[first]}: name each run once.")
    for line in markdown(runs):
        console.print(line, markup=False, soft_wrap=True)


def read_run(directory: Path, task: str | None = None) -> SizeAndSureness:
    """Read what a run says about size and sureness; see `report_compressibility`.

    Raises:
        UserError: If the run is not finished, its codes were not measured, or the task was not scored.
    """
    refuse_sweep(directory)
    quantization = read_if_there(directory / "quantization.json", Quantization)
    if quantization is None or not (directory / "metrics.json").is_file():
        missing = "quantization.json" if quantization is None else "metrics.json"
        raise UserError(f"{directory} is no finished run of a quantized model: it has no {missing}.")
    metrics: MetricsByTask = read(directory / "metrics.json", MetricsByTask)
    provenance = read(directory / "provenance.json", Provenance)
    coded_bits, entropy, seconds = (
        quantization.bits_per_weight_coded,
        quantization.code_entropy,
        quantization.load_seconds,
    )
    if coded_bits is None or entropy is None or seconds is None:
        raise UserError(
            f"{directory}: no codes of {quantization.quantizer}'s weights were measured. Run it again with "
            "compress.measure=true in another hydra.run.dir; casts, noise and GGUF files have no codes to measure."
        )
    task = task or (MACRO if MACRO in metrics else next(iter(metrics), "no task"))
    fitting = [name for name, values in metrics.items() if SURENESS.keys() <= values.keys()]
    if task not in fitting:
        raise UserError(
            f"{directory}: {task} has no confidence to show, or was not asked; --task may be {', '.join(fitting) or 'none'}."
        )
    return SizeAndSureness(
        model=provenance.model.name if provenance.model else "",
        quantizer=provenance.labels.quantizer if provenance.labels else quantization.quantizer or "",
        bits=quantization.bits_per_weight,
        coded_bits=coded_bits,
        code_entropy=entropy,
        load_seconds=seconds,
        numbers=metrics[task],
        questions={name: values["accuracy"].n for name, values in metrics.items() if "accuracy" in values},
    )


def markdown(runs: Sequence[SizeAndSureness]) -> list[str]:
    """Return the lines of the table and, for each model, the answer."""
    ordered = sorted(runs, key=lambda run: (run.model, run.coded_bits))
    rows: list[Sequence[str]] = [COLUMNS, ["---"] * len(COLUMNS), *map(_row, ordered)]
    answers = [_answer(model, list(group)) for model, group in groupby(ordered, key=lambda run: run.model)]
    return ["| " + " | ".join(cells) + " |" for cells in rows] + ["", *filter(None, answers)]


def _row(run: SizeAndSureness) -> list[str]:
    sizes = [f"{bits:.2f}" for bits in (run.bits, run.coded_bits, run.code_entropy)]
    numbers = [_number(run.numbers[metric]) for metric in SURENESS]
    return [run.model, run.quantizer, *sizes, f"{run.load_seconds * 1000:.3g} ms", *numbers]


def _answer(model: str, runs: Sequence[SizeAndSureness]) -> str | None:
    """Return which quantizer of a model is the cheapest to load and which the least sure; None if there is only one."""
    if len(runs) < 2:
        return None
    if any(run.questions != runs[0].questions for run in runs):
        return f"{model}: its runs scored different questions, so that they cannot be compared: leave some out."
    names, cheapest = _lowest(runs, lambda run: run.coded_bits)
    parts = [f"{model}: the cheapest to load {names}, {cheapest.coded_bits:.2f} bits a weight after coding"]
    for metric, what in (("confidence", "the least sure"), ("true_label_prob", "the least sure of the right answer")):
        names, least = _lowest(runs, partial(_value, metric))
        parts.append(f"{what} {names} ({SURENESS[metric]} {_number(least.numbers[metric])})")
    return "; ".join(parts) + "."


def _value(metric: str, run: SizeAndSureness) -> float:
    return run.numbers[metric].value or 0.0


def _lowest(runs: Sequence[SizeAndSureness], key: Callable[[SizeAndSureness], float]) -> tuple[str, SizeAndSureness]:
    """Return in words which quantizers have the lowest number, and the first of them."""
    lowest = [run for run in runs if key(run) == min(map(key, runs))]
    return f"{'is' if len(lowest) == 1 else 'are'} {' and '.join(run.quantizer for run in lowest)}", lowest[0]


def _number(measured: Measurement) -> str:
    if measured.value is None:
        return "–"
    if measured.ci_low is None or measured.ci_high is None:
        return f"{measured.value:.3f}"
    return f"{measured.value:.3f} [{measured.ci_low:.3f}, {measured.ci_high:.3f}]"
