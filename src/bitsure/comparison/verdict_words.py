"""A verdict in words, the same on the terminal, on pages and in W&B."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bitsure.comparison.judgement import Judgement
from bitsure.comparison.losses import TEXT_NLL
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.metric_names import BASELINE_ABOVE_GUESSING, CALIBRATION, ONLY_BASELINE, ONLY_QUANTIZED
from bitsure.results.measurement import Difference, Interval
from bitsure.results.verdict import INFERIOR, NON_INFERIOR, MarginVerdict, Verdict

FULL_PRECISION_RUN = "the full-precision run"  # what sentences call the baseline
LABELS = {
    "accuracy": "accuracy",
    "nll": "the NLL",
    TEXT_NLL: "the NLL of a token of whole texts",
    CALIBRATION: "the debiased calibration error",
}
UNITS = {"nll": " nats", TEXT_NLL: " nats"}
MANY = 1e7  # questions; more are never asked


def verdict_sentences(verdict: Verdict) -> list[str]:
    """Return what stands below a verdict's own sentence: a sentence a task, and what a noise control shows."""
    tasks = [task.sentence for task in verdict.tasks.values()]
    return tasks + [noise.sentence for noise in (verdict.noise_control or {}).values()]


def overall_sentence(judgement: Judgement, excluded: Mapping[str, str], tasks: int) -> str:
    """Return the verdict over tasks in a sentence: what is lost, whether surely within the margins, and what would settle it.

    Args:
        judgement: The verdict.
        excluded: Task → why it takes no part.
        tasks: How many tasks there are.
    """
    if not judgement.margins:
        reasons = "; ".join(f"{task}: {reason}" for task, reason in excluded.items())
        return f"No task takes part in the verdict ({reasons})."
    counted = f"{tasks - len(excluded)} of {tasks} tasks" if excluded else f"{tasks} tasks"
    return f"Over {counted if tasks > 1 else 'one task'} {_outcome(judgement)}."


def task_sentence(task: str, judgement: Judgement) -> str:
    """Return the verdict on one task in words."""
    outcome = _outcome(judgement)
    return f"{task}: {judgement.verdict}. {outcome[0].upper()}{outcome[1:]}."


def exclusion(values: Mapping[str, Difference], baseline: str) -> str:
    """Return why a task takes no part in the overall verdict.

    Args:
        values: The task's part of a comparison.
        baseline: What the first run is called.
    """
    above, accuracy = values.get(BASELINE_ABOVE_GUESSING), values.get("accuracy")
    if above is None or accuracy is None:
        first, second = (values[name].value for name in (ONLY_BASELINE, ONLY_QUANTIZED))
        return f"None of its questions is in both runs ({first:,} in {baseline}, {second:,} in the other)"
    reason = f"{baseline.capitalize()} itself is not clearly above guessing here"
    if above.value is None or accuracy.baseline is None or above.ci_low is None:
        return reason
    numbers = f"accuracy {accuracy.baseline:.3f}, guessing {accuracy.baseline - above.value:.3f}"
    return f"{reason} ({numbers}, difference [{above.ci_low:+.3f}, {above.ci_high:+.3f}])"


def question_count(questions: float | None) -> str:
    """Return a number of questions with two significant digits, which is more than it deserves; None is more than any."""
    if questions is None or questions > MANY:
        return f"> {MANY:,.0f}"
    digits = max(0, len(str(math.ceil(questions))) - 2)
    return f"{round(math.ceil(questions), -digits):,}"


def rises_or_falls(change: float, ends: Interval | None) -> str:
    """Return which way a number went and by how much, with the interval of that amount.

    Args:
        change: The change; -0.0 is a fall by nothing.
        ends: The ends of the change's interval; None where it has none.
    """
    sign = math.copysign(1, change)
    amount = f"{'rises' if sign > 0 else 'falls'} by {abs(change):.4f}"
    if ends is None:
        return amount
    low, high = sorted(sign * end for end in ends)
    return f"{amount} [{low:+.4f}, {high:+.4f}]"


def _outcome(judgement: Judgement) -> str:
    """Return what is lost by how much, whether that is surely within the margins, and what would settle it."""
    shown = {name: of_metric for name, of_metric in judgement.margins.items() if of_metric.verdict == judgement.verdict}
    is_partial = any(of_metric.n != judgement.n for of_metric in shown.values())
    losses = _listed(
        [_change(name, of_metric) + (f" ({_counts(of_metric)})" if is_partial else "") for name, of_metric in shown.items()]
    )
    limits = _listed([f"{of_metric.margin:g}{UNITS.get(name, '')}" for name, of_metric in shown.items()])
    margins = f"the margin{'s' * (len(shown) > 1)} of {limits}"
    intervals = f"{100 * judgement.level:.3g}% intervals"
    basis = f", {intervals}" if is_partial else f" ({judgement.n:,} questions, {intervals})"
    if judgement.verdict == NON_INFERIOR:
        return f"{losses}{basis}: surely within {margins}"
    if judgement.verdict == INFERIOR:
        return f"{losses}{basis}: surely beyond {margins}"
    return f"{losses}{basis}: not surely within {margins}; {_what_settles(judgement)}"


def _change(name: str, of_metric: MarginVerdict) -> str:
    sign, low, high = -1 if name == "accuracy" else 1, of_metric.ci_low, of_metric.ci_high
    loss = of_metric.loss + 0.0  # no loss of accuracy is a fall by nothing, also where it is -0.0
    ends = None if low is None or high is None else (sign * low, sign * high)
    return f"{LABELS[name]} {rises_or_falls(sign * loss, ends)}{UNITS.get(name, '')}"


def _counts(of_metric: MarginVerdict) -> str:
    """Return over how much a metric is taken that not every task has."""
    tasks = of_metric.n_tasks or 1
    return f"{tasks} task{'s' * (tasks > 1)}, {of_metric.n:,} questions"


def _what_settles(judgement: Judgement) -> str:
    needed, limiting = judgement.needed, judgement.limiting
    if needed is None or limiting is None:
        return f"a verdict needs at least {FEWEST} questions, or clusters of them, in each task"
    if needed.if_lossless > 0:
        ends = "" if needed.low is None else f" [{question_count(needed.low)}, {question_count(needed.high)}]"
        more = f"about {question_count(needed.if_lossless)} more{ends} would settle it at 80% power if nothing is lost"
    elif needed.at_loss_seen is None or needed.at_loss_seen > MANY:
        more = "those asked would be enough at 80% power if nothing were lost, but at the loss seen no number settles it"
    else:
        count = question_count(needed.at_loss_seen)
        more = f"about {count} more would settle it at 80% power at the loss seen (those asked, if nothing were lost)"
    of_metric = judgement.margins[limiting]
    margin = f"{of_metric.decidable_margin:.2g}{UNITS.get(limiting, '')}"
    return f"{more}; {of_metric.n:,} can settle a margin of {margin} for {LABELS[limiting]}"


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
