"""How much a quantized model lost of what a verdict is about: accuracy, NLL and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitsure.config.schema import VerdictSettings
from bitsure.metrics.bootstrap import t_quantile
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.metric_names import BASELINE_ABOVE_GUESSING, CALIBRATION, SQUARED_CALIBRATION
from bitsure.results.measurement import Difference

COMPARED = {"accuracy": "accuracy", "nll": "nll", CALIBRATION: SQUARED_CALIBRATION}  # what each loss is computed from
GUESSING_LEVEL = 0.9  # two-sided: a one-sided test at .05


@dataclass(frozen=True)
class Loss:
    """A loss with its uncertainty, of one task or of the mean over tasks.

    That of calibration is the rise of the debiased squared error, whose estimate is unbiased and whose interval covers. Near
    perfect calibration that of a difference of errors does not. `limit` and `in_unit` turn it into a rise of the error.

    Attributes:
        value: How much worse the quantized model is; below 0 where it is better.
        below: The standard error towards the lower end of its interval; NaN for too few questions.
        above: The standard error towards the upper end.
        margin: The largest loss that is small enough to ship, in the metric's unit.
        n: How many questions it is taken over.
        units: How many of them, or of their clusters, are independent; over tasks that of the task with the fewest.
        n_clusters: In how many clusters a task's questions come; None where every question is alone.
        variance_error: The standard error of its variance, as a share of the variance; NaN where unknown.
        chance_share: The share of its variance that falls with the square of the number of questions, in [0, 1].
        squares: Of calibration, the squared errors before and after, which may be negative; None for other losses.

    Reference: Kumar et al. 2019 for the debiased error.
    """

    value: float
    below: float
    above: float
    margin: float
    n: int
    units: int
    n_clusters: int | None = None
    variance_error: float = math.nan
    chance_share: float = 0.0
    squares: tuple[float, float] | None = None

    @property
    def is_judged(self) -> bool:
        """Whether there are enough questions, or clusters of them, for a decision."""
        return self.units >= FEWEST and not math.isnan(self.below + self.above)

    @property
    def limit(self) -> float:
        """The margin in the unit of `value`."""
        return self.margin if self._roots is None else self.margin * max(self._roots, self.margin)

    def in_unit(self, value: float) -> float:
        """Return a loss in the metric's unit.

        A rise b − a of the squared error is one of the error by (b − a) / (√a + √b); from an error of 0 it is √(b − a).
        """
        if self._roots is None:
            return value
        return value / self._roots if abs(value) <= self._roots**2 else math.copysign(math.sqrt(abs(value)), value)

    @property
    def _roots(self) -> float | None:
        """The sum of the errors before and after, of those above 0; None for losses in their own unit."""
        return None if self.squares is None else sum(math.sqrt(max(square, 0.0)) for square in self.squares)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval at a confidence level in (0, 1), in the unit of `value`."""
        errors = t_quantile(math.inf, level)
        return self.value - errors * self.below, self.value + errors * self.above


def task_losses(values: Mapping[str, Difference], margins: VerdictSettings, level: float) -> dict[str, Loss]:
    """Return the loss of each metric that a task has.

    Args:
        values: The task's part of a comparison, of which at least one question was compared.
        margins: The largest loss of each metric that is small enough to ship.
        level: The confidence level of the comparison's intervals.
    """
    by_metric = {"accuracy": margins.accuracy_margin, "nll": margins.nll_margin, CALIBRATION: margins.calibration_error_margin}
    return {
        name: _loss(values[COMPARED[name]], margin, name, level)
        for name, margin in by_metric.items()
        if COMPARED[name] in values
    }


def _loss(change: Difference, margin: float, name: str, level: float) -> Loss:
    worse = -1 if name == "accuracy" else 1
    assert change.value is not None  # these metrics always exist
    value = worse * change.value + 0.0  # no −0
    below = above = math.nan
    if change.ci_low is not None and change.ci_high is not None:
        low, high = sorted((worse * change.ci_low, worse * change.ci_high))
        errors = t_quantile(math.inf, level)
        below, above = (value - low) / errors, (high - value) / errors
    return Loss(
        value=value,
        below=below,
        above=above,
        margin=margin,
        n=change.n,
        units=change.n if change.n_clusters is None else change.n_clusters,
        n_clusters=change.n_clusters,
        variance_error=math.nan if change.variance_error is None else change.variance_error,
        chance_share=change.chance_share or 0.0,
        squares=(change.baseline or 0.0, change.quantized or 0.0) if name == CALIBRATION else None,
    )


def mean_losses(by_task: Sequence[Mapping[str, Loss]]) -> dict[str, Loss]:
    """Return each metric's mean loss over the tasks that have it, tasks counting alike.

    Reference: Zou & Donner 2008 for an interval of a sum from the intervals of its terms.
    """
    names = dict.fromkeys(name for losses in by_task for name in losses)
    return {name: _mean([losses[name] for losses in by_task if name in losses]) for name in names}


def _mean(losses: Sequence[Loss]) -> Loss:
    k = len(losses)
    below, above = (math.hypot(*(getattr(loss, side) for loss in losses)) / k for side in ("below", "above"))
    variance = sum(loss.above**2 for loss in losses)
    varying = [loss for loss in losses if loss.above > 0]
    squares = [loss.squares for loss in losses if loss.squares]
    return Loss(
        value=sum(loss.value for loss in losses) / k,
        below=below,
        above=above,
        margin=losses[0].margin,
        n=sum(loss.n for loss in losses),
        units=min(loss.units for loss in losses),
        variance_error=math.hypot(*(loss.above**2 * loss.variance_error for loss in varying)) / variance
        if varying
        else math.nan,
        chance_share=sum(loss.above**2 * loss.chance_share for loss in varying) / variance if varying else 0.0,
        squares=(sum(before for before, _ in squares) / k, sum(after for _, after in squares) / k) if squares else None,
    )


def is_above_guessing(values: Mapping[str, Difference]) -> bool:
    """Return whether full precision's accuracy is above guessing; without choices to guess from, it always is."""
    above = values.get(BASELINE_ABOVE_GUESSING)
    if above is None:
        return True
    if above.value is None or above.standard_error is None:
        return False
    return above.value > t_quantile(math.inf, GUESSING_LEVEL) * above.standard_error
