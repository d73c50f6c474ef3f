"""Losses held against their margins: the decision, and what would bring one about."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bitsure.comparison.losses import Loss
from bitsure.comparison.questions_needed import Distance, errors_shown, needed_growth
from bitsure.metrics.bootstrap import t_quantile
from bitsure.results.verdict import INFERIOR, NON_INFERIOR, NOT_JUDGED, UNDECIDED, Decision, MarginVerdict, QuestionsNeeded


@dataclass(frozen=True)
class Judgement:
    """The verdict on one task or on the mean over tasks.

    Attributes:
        verdict: Not judged where there are no losses; inferior if any metric is, non-inferior if all are, else undecided.
        margins: Metric → its verdict.
        level: The confidence level of their intervals.
        n: How many questions there are.
        needed: What would decide; None where it is decided, or a task has too few questions for a forecast.
        limiting: Of the metrics with this verdict the undecided one in most need of questions, the inferior one furthest beyond
            its margin, or the non-inferior one closest to it; None where a task has too few questions.
    """

    verdict: Decision
    margins: dict[str, MarginVerdict]
    level: float
    n: int
    needed: QuestionsNeeded | None = None
    limiting: str | None = None


def judge_losses(losses: Mapping[str, Loss], level: float, n: int) -> Judgement:
    """Return the verdict on losses.

    Args:
        losses: Metric → its loss.
        level: The confidence level of the intervals, in (0, 1).
        n: How many questions there are.
    """
    margins = {name: _against_margin(loss, level) for name, loss in losses.items()}
    verdict = decide([of_metric.verdict for of_metric in margins.values()])
    deciding = {name: losses[name] for name, of_metric in margins.items() if of_metric.verdict == verdict}
    if not can_decide(deciding):
        return Judgement(verdict, margins, level, n)
    limiting = max(deciding, key=lambda name: _limits(deciding[name], verdict, level))
    needed = _questions_needed(losses.values(), level, n) if verdict == UNDECIDED else None
    return Judgement(verdict, margins, level, n, needed, limiting)


def _limits(loss: Loss, verdict: Decision, level: float) -> float:
    """Return what is largest for the metric that limits a verdict."""
    if verdict == UNDECIDED:
        return -_errors(loss.limit - loss.least(level), loss.error_above)
    return _errors(loss.value - loss.limit, loss.error_below if verdict == INFERIOR else loss.error_above)


def can_decide(losses: Mapping[str, Loss]) -> bool:
    """Return whether there are losses, all of them over enough questions."""
    return bool(losses) and all(loss.is_judged for loss in losses.values())


def decide(verdicts: Collection[Decision]) -> Decision:
    """Return inferior if any verdict is, non-inferior if all are, else undecided; not judged where there are none."""
    if not verdicts:
        return NOT_JUDGED
    if INFERIOR in verdicts:
        return INFERIOR
    return NON_INFERIOR if set(verdicts) == {NON_INFERIOR} else UNDECIDED


def holm_levels(by_task: Mapping[str, Mapping[str, Loss]], level: float) -> dict[str, float]:
    """Return the confidence level at which each task is judged, so that all verdicts together hold at `level`.

    The task with the clearest losses is judged at 1 − α/k for k tasks, the next at 1 − α/(k − 1), and so on until one is
    undecided; the rest are judged at that one's level.

    Args:
        by_task: Task → metric → loss.
        level: 1 − α.

    Reference: Holm 1979; Shaffer 1980 for tests that decide on a direction.
    """
    p_values = {task: _p_value(losses.values()) for task, losses in by_task.items()}
    levels, left = {}, len(p_values)
    for task in sorted(p_values, key=p_values.__getitem__):
        levels[task] = 1 - (1 - level) / left
        if p_values[task] < 1 - levels[task]:
            left -= 1
    return levels


def _p_value(losses: Collection[Loss]) -> float:
    """Return the smallest α at which two-sided intervals at 1 − α decide."""
    from scipy.special import ndtr

    within = max(ndtr(-_errors(loss.limit - loss.value, loss.error_above)) for loss in losses)
    beyond = min(ndtr(-_errors(loss.value - loss.limit, loss.error_below)) for loss in losses)
    return 2 * float(min(within, beyond))


def _errors(distance: float, standard_error: float) -> float:
    return distance / standard_error if standard_error > 0 else math.copysign(math.inf, distance)


def _against_margin(loss: Loss, level: float) -> MarginVerdict:
    """Return the verdict on one metric by its interval at a level."""
    shown = errors_shown(t_quantile(math.inf, level)) * loss.error_above
    low, high = loss.interval(level)
    verdict = UNDECIDED
    if loss.is_judged:
        verdict = NON_INFERIOR if high < loss.limit else INFERIOR if low > loss.limit else UNDECIDED
    counts = {} if loss.n_clusters is None else {"n_clusters": loss.n_clusters}
    if loss.n_tasks > 1:
        counts["n_tasks"] = loss.n_tasks
    return MarginVerdict(
        verdict=verdict,
        loss=loss.in_unit(loss.value),
        ci_low=loss.in_unit(low),
        ci_high=loss.in_unit(high),
        margin=loss.margin,
        n=loss.n,
        decidable_margin=loss.in_unit(loss.least(level) + shown) if loss.is_judged else None,
        **counts,
    )


def _questions_needed(losses: Collection[Loss], level: float, n: int) -> QuestionsNeeded:
    """Return how many more questions show all losses to be within their margins if each is the least that its interval allows.

    Never if each is the loss seen: that is uncertain itself, and near the margin no number of questions decides.

    Args:
        losses: The loss of each metric.
        level: The confidence level of the intervals.
        n: How many questions there are.
    """
    errors = t_quantile(math.inf, level)

    def more(end: int) -> float:
        """Return how many at an end of the number's interval: −1 for the lower, 0 for the number itself, 1 for the upper.

        The upper end is where variances are large and the limit of calibration, which is estimated as well, is small.
        """
        distances = []
        for loss in losses:
            scale = math.exp(end * errors * loss.variance_error) if end and loss.error_above > 0 else 1.0
            variance = loss.error_above**2 * scale
            size = max(0.0, loss.limit_at(-end * errors) - loss.least(level))
            distances.append(Distance(size, variance * (1 - loss.chance_share), variance * loss.chance_share))
        return n * max(0.0, needed_growth(distances, errors) - 1)

    is_known = all(math.isfinite(loss.variance_error) for loss in losses if loss.error_above > 0)
    low, high = (more(-1), more(1)) if is_known else (None, None)
    return QuestionsNeeded(if_lossless=more(0), low=low, high=high)
