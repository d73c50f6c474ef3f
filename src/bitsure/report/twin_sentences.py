"""Say in words whether a quantized model is less robust: whether its answers change more with the words of a question."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.base.decimals import decimal
from bitsure.config.derived_tasks import derivation_of, original_task
from bitsure.metrics.metric_names import TWIN_ACCURACY_CHANGE, TWIN_FLIP_RATE
from bitsure.report.percentages import percent, points
from bitsure.results import Comparison, Difference, Measurement, MetricsByTask

CHANGES = {
    "typos": "with typing errors in it",
    "order": "with its options in another order",
    "distractor": "after an irrelevant sentence",
}


def twin_sentences(metrics: MetricsByTask, comparison: Comparison | None) -> list[str]:
    """Return a sentence for each twin whose original was asked too.

    Args:
        metrics: The run's numbers.
        comparison: The run against full precision; None for a full-precision run, whose sentences compare nothing.
    """
    if comparison is None:
        return [_alone(task, values) for task, values in metrics.items() if TWIN_FLIP_RATE in values]
    return [_compared(task, values) for task, values in comparison.items() if TWIN_FLIP_RATE in values]


def _alone(task: str, values: Mapping[str, Measurement]) -> str:
    rate, change = values[TWIN_FLIP_RATE], values[TWIN_ACCURACY_CHANGE]
    return f"{_asked(task, rate)}: {percent(rate.value)} of the answers change, and accuracy by {points(change)}."


def _compared(task: str, values: Mapping[str, Difference]) -> str:
    """Return how much more the quantized model's answers change, after a mark of what is sure about that."""
    rate, change = values[TWIN_FLIP_RATE], values[TWIN_ACCURACY_CHANGE]
    mark, outcome = _outcome(rate, values["accuracy"])
    return (
        f"{mark} {_asked(task, rate)}: {percent(rate.quantized)} of the quantized model's answers change, "
        f"{percent(rate.baseline)} of full precision's: {points(rate)}. {outcome}. Accuracy changes by "
        f"{_in_points(change.quantized)}, in full precision by {_in_points(change.baseline)}: {points(change)}."
    )


def _outcome(rate: Difference, accuracy: Difference) -> tuple[str, str]:
    """Return the mark, and whether the quantized model is less robust. One that guesses never changes its answer."""
    if rate.ci_low is not None and rate.ci_low > 0:
        return "✗", "It is less robust"
    if rate.ci_high is None or rate.ci_high >= 0:
        return "≈", "It is not shown to be less robust"
    if accuracy.ci_high is not None and accuracy.ci_high < 0:
        return "≈", "They change less, but are less often right: a model that always guesses alike never changes its answer"
    return "✓", "It is more robust"


def _in_points(change: float | None) -> str:
    return f"{decimal(None if change is None else 100 * change, '+.1f')} points"


def _asked(task: str, rate: Measurement) -> str:
    return f"{task}: {rate.n:,} questions of {original_task(task)}, each asked again {CHANGES[str(derivation_of(task))]}"
