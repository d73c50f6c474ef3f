"""Say in words what quantizing does to thresholds: the size of answer sets, and whether those of full precision still hold."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.metrics.conformal import MISCOVERAGE
from bitsure.metrics.deferral import NAMES
from bitsure.metrics.full_thresholds import COVERAGE_AT_FULL_THRESHOLD, SAFE_AT_FULL_THRESHOLD
from bitsure.metrics.metric_names import CONFORMAL_SET_SIZE
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
        f"{_number(size.quantized, '.2f')} choices instead of {_number(size.baseline, '.2f')} in full precision: "
        f"{_change(size, 'choices')}.",
        f"{task}: at the threshold found on full precision the quantized model's sets hold one for "
        f"{_share(coverage.quantized)} of the questions, full precision's for {_share(coverage.baseline)}: "
        f"{_points(coverage)}. {_coverage_outcome(coverage)}",
        f"{task}: {_deferral(values)}",
    ]


def _coverage_outcome(change: Difference) -> str:
    """Return whether the quantized model's sets keep what was promised; a change from full precision does not say so."""
    if change.quantized_ci is None:
        return "These are too few questions to say whether it still holds."
    low, high = change.quantized_ci
    promise = f"the promised {1 - MISCOVERAGE:.0%}"
    interval = f"[{_share(low)}, {_share(high)}]"
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
        f"{outcome} Worst is that for {share}: full precision defers or answers rightly {_share(worst.baseline)} of the "
        f"questions, the quantized model {_share(worst.quantized)} ({_share(worst.share)} deferred): {_points(worst)}."
    )


def _share(share: float | None) -> str:
    return _number(share, ".1%")


def _points(change: Difference) -> str:
    return _change(change, "points", 100, 1)


def _change(change: Difference, unit: str, scale: int = 1, digits: int = 2) -> str:
    """Return a change times a scale, with its unit and its interval, if it has one."""
    value, low, high = (None if number is None else scale * number for number in (change.value, change.ci_low, change.ci_high))
    spec = f"+.{digits}f"
    text = f"{_number(value, spec)} {unit}"
    return text if low is None or high is None else f"{text} [{low:{spec}}, {high:{spec}}]"


def _number(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)
