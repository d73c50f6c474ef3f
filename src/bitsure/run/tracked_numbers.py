"""The numbers of a run that W&B gets one by one, each with a key of its own, and those that it gets as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitsure.config.derived_tasks import is_repetition
from bitsure.metrics.divergence import AUROC, IDENTICAL, OTHER_WORDING
from bitsure.metrics.metric_names import ECE, PRIMARY, TWIN_FLIP_RATE
from bitsure.metrics.preference import BALANCE, PREFERS_QUANTIZED
from bitsure.report.report_contents import Report
from bitsure.report.rounded import WEIGHTS, rounded_parts
from bitsure.results import Costs, Difference, Measurement, Quantization
from bitsure.results.measurement import MACRO
from bitsure.results.run_files import ModelOrigin
from bitsure.run.wandb_names import fit

Values = dict[str, float | int]
MEAN = "mean"  # over the tasks with choices; of a single task, its own number
CONFIDENCE = "confidence"  # only tasks with choices have it
HEADLINE = ("accuracy", PRIMARY, "nll", ECE, CONFIDENCE)  # of one model; the difference is beside it
HEADLINE_OF_PAIRS = ("kl_divergence", "flip_rate")  # of both models together
OF_TEXTS = ("word_perplexity", "perplexity")  # of whole texts, which have no right answer: the first that a task has
OF_ANSWERS = (IDENTICAL, OTHER_WORDING, AUROC, PREFERS_QUANTIZED, BALANCE)  # of two models that wrote answers
WORK = ("seconds", "tokens_per_second", "peak_memory_bytes", "peak_gpu_memory_bytes")
NUMBER_COLUMNS: dict[str, type] = {
    **{"task": str, "metric": str, "value": float, "ci_low": float, "ci_high": float, "n": int, "baseline": float},
    **{"change": float, "change_ci_low": float, "change_ci_high": float, "p_value": float, "p_adjusted": float},
}


def fact_values(quantization: Quantization | None, costs: Costs, model: ModelOrigin | None) -> Values:
    """Return what was rounded and what the work cost.

    Args:
        quantization: The proof of what was quantized; None in full precision.
        costs: Seconds, speed and memory.
        model: The full-precision model; None where it is not known.

    Returns:
        `quantization/…` and `costs/<step>/…`; what is not known has no key.
    """
    values: dict[str, float | int | None] = {}
    for part in rounded_parts(quantization, model) if quantization else ():
        if part.name == WEIGHTS:
            values |= {"quantization/bits_per_weight": part.bits, "quantization/relative_error": part.error}
            values["quantization/bytes"] = part.bytes
        else:
            name = part.name.replace(" ", "_")
            of_part = {"bits": part.bits, "error": part.error, "bytes_per_token": part.bytes}
            values |= {f"quantization/{name}/{key}": value for key, value in of_part.items()}
    if quantization:
        values["quantization/bits_per_weight_coded"] = quantization.bits_per_weight_coded
        values["quantization/load_seconds"] = quantization.load_seconds
    for step in ("quantizing", "scoring_full_precision", "scoring_quantized"):
        work = getattr(costs, step)
        values |= {f"costs/{step}/{name}": getattr(work, name, None) for name in WORK}
    return _known(values)


def mean_values(report: Report, own_metrics: Sequence[str] = ()) -> list[Values]:
    """Return the headline: each metric's mean over the tasks, with full precision's and the change beside it.

    Args:
        report: The run's numbers.
        own_metrics: Names of the user's own metrics, which come last.

    Returns:
        For each metric its values under `<metric>/mean…`; none for a metric that the tasks do not have.
    """
    metrics = [*HEADLINE, *(HEADLINE_OF_PAIRS if report.comparison else ()), *own_metrics]
    groups = [_of_metric(report, _mean_task(report), metric, MEAN) for metric in metrics]
    return [group for group in groups if group]


def task_values(report: Report, task: str) -> Values:
    """Return a task's accuracy and true-label probability, and their changes; of texts perplexity and KL divergence.

    A twin also has the share of answers that change with its words; written answers have where the two models part, and whose
    full precision finds likelier.
    """
    measured = report.metrics[task]
    values: Values = {}
    of_texts = [metric for metric in OF_TEXTS if metric in measured][:1]
    of_twins = [metric for metric in (TWIN_FLIP_RATE,) if metric in measured]
    of_answers = [metric for metric in OF_ANSWERS if metric in (report.comparison or {}).get(task, {})]
    for metric in (
        ("accuracy", PRIMARY, *of_twins, *of_answers) if PRIMARY in measured or of_answers else (*of_texts, "kl_divergence")
    ):
        key = f"{metric}/{fit(task)}"
        shown = _of_metric(report, task, metric, fit(task))
        values |= {name: shown[name] for name in (key, f"{key}/change", f"{key}/change_p_adjusted") if name in shown}
    return values


def number_rows(report: Report) -> list[list[Any]]:
    """Return a row under NUMBER_COLUMNS for each task and metric."""
    rows = []
    for task in report.metrics | (report.comparison or {}):
        measured, changes = report.metrics.get(task, {}), (report.comparison or {}).get(task, {})
        for metric in measured | changes:
            own = measured.get(metric) or changes[metric]  # of both models together: it stands for itself
            change = changes.get(metric) if metric in measured else None
            before = _baseline(report, task, metric)
            tested = changes.get(metric)
            row = [task, metric, own.value, own.ci_low, own.ci_high, own.n, before.value if before else None]
            row += [change.value, change.ci_low, change.ci_high] if change else [None, None, None]
            rows.append([*row, tested.p_value if tested else None, tested.p_adjusted if tested else None])
    return [[float(cell) if kind is float and cell is not None else cell for cell, kind in _typed(row)] for row in rows]


def _typed(row: list[Any]) -> zip[tuple[Any, type]]:
    return zip(row, NUMBER_COLUMNS.values(), strict=True)


def _mean_task(report: Report) -> str:
    """Return the task whose numbers are the headline: the mean over tasks with choices, or the only one of them."""
    with_choices = [task for task, measured in report.metrics.items() if task != MACRO and CONFIDENCE in measured]
    counted = [task for task in with_choices if not is_repetition(task, with_choices)]
    return counted[0] if len(counted) == 1 else MACRO


def _of_metric(report: Report, task: str, metric: str, name: str) -> Values:
    """Return a metric's numbers on a task, under `<metric>/<name>`."""
    key = f"{fit(metric)}/{name}"
    own = report.metrics.get(task, {}).get(metric)
    change = (report.comparison or {}).get(task, {}).get(metric)
    if own is None:  # of both models together
        return _known({key: change.value, f"{key}/ci_low": change.ci_low, f"{key}/ci_high": change.ci_high}) if change else {}
    if change is None:
        return _known({key: own.value, f"{key}/ci_low": own.ci_low, f"{key}/ci_high": own.ci_high})
    before = _baseline(report, task, metric)
    return _known(
        {
            key: own.value,
            f"{key}/baseline": before.value if before else None,
            f"{key}/change": change.value,
            f"{key}/change_ci_low": change.ci_low,
            f"{key}/change_ci_high": change.ci_high,
            f"{key}/change_p_adjusted": change.p_adjusted,
        }
    )


def _baseline(report: Report, task: str, metric: str) -> Measurement | Difference | None:
    return (report.baseline_metrics or {}).get(task, {}).get(metric)


def _known(values: Mapping[str, float | int | None]) -> Values:
    return {key: value for key, value in values.items() if value is not None}
