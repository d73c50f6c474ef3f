"""Say in words what quantizing does to thresholds: the size of answer sets, and whether those of full precision still hold."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.base.decimals import decimal
from bitsure.metrics.conformal import MISCOVERAGE
from bitsure.metrics.deferral import NAMES
from bitsure.metrics.full_thresholds import COVERAGE_AT_FULL_THRESHOLD, SAFE_AT_FULL_THRESHOLD
from bitsure.metrics.metric_names import CONFORMAL_SET_SIZE
from bitsure.report.percentages import percent, points, with_unit
from bitsure.results import Difference


def threshold_sentences(task: str, values: Mapping[str, Difference]) -> list[str]:
    """Return what one task's comparison says of conformal answer sets and of deferral, a sentence each.

    Args:
        task: The task's name.
        values: The task's part of a comparison, which has choices.
    """
    size, coverage = values[CONFORMAL_SET_SIZE], values[COVERAGE_AT_FULL_THRESHOLD]
    return [
        f"{task}: answer sets that hold a right choice for {1 - MISCOVERAGE:.0%} of the questions take "
        f"{decimal(size.quantized, '.2f')} choices instead of {decimal(size.baseline, '.2f')} in full precision: "
        f"{with_unit(size, 'choices')}.",
        f"{task}: at the threshold found on full precision the quantized model's sets hold one for "
        f"{percent(coverage.quantized)} of the questions, full precision's for {percent(coverage.baseline)}: "
        f"{points(coverage)}. {_coverage_outcome(coverage)}",
        f"{task}: {_deferral(values)}",
    ]


def _coverage_outcome(change: Difference) -> str:
    """Return whether the quantized model's sets keep what was promised; a change from full precision does not say so."""
    if change.quantized_ci is None:
        return "These are too few questions to say whether it still holds."
    low, high = change.quantized_ci
    promise = f"the promised {1 - MISCOVERAGE:.0%}"
    interval = f"[{percent(low)}, {percent(high)}]"
    if high < 1 - MISCOVERAGE:
        return f"It no longer holds: {interval} lies below {promise}. Find it again on the quantized model."
    if low >= 1 - MISCOVERAGE:
        return f"It still holds: {interval} does not reach below {promise}."
    return f"It may still hold: {interval} includes {promise}."


def _deferral(values: Mapping[str, Difference]) -> str:
    """Return at which of full precision's thresholds more wrong answers pass, and the numbers of the worst one."""
    thresholds = zip(NAMES, SAFE_AT_FULL_THRESHOLD, strict=True)
    changes = {name.replace("_percent", "%"): values[metric] for name, metric in thresholds}
    unsafe = [share for share, change in changes.items() if change.ci_high is not None and change.ci_high < 0]
    share, worst = min(changes.items(), key=lambda item: item[1].value or 0.0)
    outcome = "no confidence below which full precision defers is shown to let more wrong answers of the quantized model pass."
    if unsafe:
        outcome = (
            f"the confidences below which full precision defers {', '.join(unsafe)} of its answers let more wrong answers of "
            "the quantized model pass: find them again on it."
        )
    return (
        f"{outcome} Worst is that for {share}: full precision defers or answers rightly {percent(worst.baseline)} of the "
        f"questions, the quantized model {percent(worst.quantized)} ({percent(worst.share)} deferred): {points(worst)}."
    )
