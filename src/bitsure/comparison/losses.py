"""How much a quantized model lost of what a verdict is about: accuracy, NLL and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitsure.config.schema import VerdictSettings
from bitsure.metrics.bootstrap import t_quantile
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.metric_names import BASELINE_ABOVE_GUESSING, JUDGED
from bitsure.results.measurement import Difference

GUESSING_LEVEL = 0.9  # two-sided: a one-sided test at .05


@dataclass(frozen=True)
class Loss:
    """A loss with its uncertainty, of one task or of the mean over tasks.

    Attributes:
        value: How much worse the quantized model is, in the metric's unit; below 0 where it is better.
        below: The standard error towards the lower end of its interval; NaN for too few questions.
        above: The standard error towards the upper end.
        margin: The largest loss that is small enough to ship.
        n: How many questions it is taken over.
        units: How many of them, or of their clusters, are independent; over tasks that of the task with the fewest.
        n_clusters: In how many clusters a task's questions come; None where every question is alone.
        variance_error: The standard error of its variance, as a share of the variance; NaN where unknown.
    """

    value: float
    below: float
    above: float
    margin: float
    n: int
    units: int
    n_clusters: int | None = None
    variance_error: float = math.nan

    @property
    def is_judged(self) -> bool:
        """Whether there are enough questions, or clusters of them, for a decision."""
        return self.units >= FEWEST and not math.isnan(self.below + self.above)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the loss's interval at a confidence level in (0, 1)."""
        errors = t_quantile(math.inf, level)
        return self.value - errors * self.below, self.value + errors * self.above


def task_losses(values: Mapping[str, Difference], margins: VerdictSettings, level: float) -> dict[str, Loss]:
    """Return the loss of each metric that a task has.

    Args:
        values: The task's part of a comparison, of which at least one question was compared.
        margins: The largest loss of each metric that is small enough to ship.
        level: The confidence level of the comparison's intervals.
    """
    by_metric = zip(JUDGED, (margins.accuracy_margin, margins.nll_margin, margins.calibration_error_margin), strict=True)
    return {
        name: _loss(values[name], margin, -1 if name == "accuracy" else 1, level)
        for name, margin in by_metric
        if name in values
    }


def _loss(change: Difference, margin: float, worse: int, level: float) -> Loss:
    """Return the loss of one metric; worse is +1 where a larger value is worse, −1 where a smaller one is."""
    assert change.value is not None  # these metrics always exist
    value = worse * change.value + 0.0  # no −0
    below = above = math.nan
    if change.ci_low is not None and change.ci_high is not None:
        low, high = sorted((worse * change.ci_low, worse * change.ci_high))
        errors = t_quantile(math.inf, level)
        below, above = (value - low) / errors, (high - value) / errors
    units = change.n if change.n_clusters is None else change.n_clusters
    variance_error = math.nan if change.variance_error is None else change.variance_error
    return Loss(value, below, above, margin, change.n, units, change.n_clusters, variance_error)


def mean_losses(by_task: Sequence[Mapping[str, Loss]]) -> dict[str, Loss]:
    """Return each metric's mean loss over the tasks that have it, tasks counting alike.

    Reference: Zou & Donner 2008 for an interval of a sum from the intervals of its terms.
    """
    names = dict.fromkeys(name for losses in by_task for name in losses)
    return {name: _mean([losses[name] for losses in by_task if name in losses]) for name in names}


def _mean(losses: Sequence[Loss]) -> Loss:
    k = len(losses)
    below, above = (math.hypot(*(getattr(loss, side) for loss in losses)) / k for side in ("below", "above"))
    variances = [loss.above**2 for loss in losses]
    spread = math.hypot(*(loss.above**2 * loss.variance_error for loss in losses if loss.above > 0))
    return Loss(
        value=sum(loss.value for loss in losses) / k,
        below=below,
        above=above,
        margin=losses[0].margin,
        n=sum(loss.n for loss in losses),
        units=min(loss.units for loss in losses),
        variance_error=spread / sum(variances) if sum(variances) > 0 else math.nan,
    )


def is_above_guessing(values: Mapping[str, Difference]) -> bool:
    """Return whether full precision's accuracy is above guessing; without choices to guess from, it always is."""
    above = values.get(BASELINE_ABOVE_GUESSING)
    if above is None:
        return True
    if above.value is None or above.standard_error is None:
        return False
    return above.value > t_quantile(math.inf, GUESSING_LEVEL) * above.standard_error
