"""How much a quantized model lost of what a verdict is about: accuracy, NLL and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitsure.config.schema import VerdictSettings
from bitsure.metrics.bootstrap import t_quantile
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.metric_names import BASELINE_ABOVE_GUESSING, BASELINE_NLL_BELOW_GUESSING, CALIBRATION, SQUARED_CALIBRATION
from bitsure.results.measurement import Difference, Interval

TEXT_NLL = "nll_per_token"  # of whole texts; that of other tasks is of a question's answer
LIMIT_ERRORS = 1.96  # standard errors over which the limit of calibration, which is no linear function, is followed
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
        square_errors: The standard errors of both.
        n_tasks: How many tasks it is the mean of.

    Reference: Kumar et al. 2019 for the debiased error; Zou & Donner 2008 for the difference of two estimates.
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
    square_errors: tuple[float, float] = (0.0, 0.0)
    n_tasks: int = 1

    @property
    def is_judged(self) -> bool:
        """Whether there are enough questions, or clusters of them, for a decision."""
        return self.units >= FEWEST and not math.isnan(self.below + self.above)

    @property
    def limit(self) -> float:
        """The margin in the unit of `value`."""
        return self.limit_at(0)

    def limit_at(self, errors: float) -> float:
        """Return the limit if the squared error before were this many standard errors larger, and the one after likewise."""
        if self.squares is None:
            return self.margin
        move = errors * self.square_errors[0]
        return self.margin * max(sum(math.sqrt(max(square + move, 0.0)) for square in self.squares), self.margin)

    @property
    def error_below(self) -> float:
        """The standard error of `value` less `limit`, towards the lower end."""
        return self._error_from_limit(self.below, 1)

    @property
    def error_above(self) -> float:
        """The same towards the upper end: larger than `above` for calibration, whose limit is estimated as well."""
        return self._error_from_limit(self.above, -1)

    def _error_from_limit(self, error: float, direction: int) -> float:
        """Return a standard error of the loss with that of the limit, which moves up (1) or down (−1).

        Near perfect calibration the limit is largest where the error before seems large by chance, which also makes the loss
        seem small.
        """
        if self.squares is None or self.square_errors[0] == 0 or error == 0:  # two equal models have no error at all
            return error
        before, after = self.square_errors
        moved = abs(self.limit_at(direction * LIMIT_ERRORS) - self.limit) / LIMIT_ERRORS
        covariance = (after**2 - before**2 - error**2) / 2  # of the loss and the squared error before
        together = max(-1.0, min(1.0, covariance / (before * error)))
        return math.sqrt(max(error**2 + moved**2 - 2 * together * error * moved, 0.0))

    def in_unit(self, value: float) -> float:
        """Return a loss in the metric's unit.

        A rise b − a of the squared error is one of the error by (b − a) / (√a + √b); from an error of 0 it is √(b − a).
        """
        if self._roots is None or value == 0:
            return value
        return value / self._roots if abs(value) <= self._roots**2 else math.copysign(math.sqrt(abs(value)), value)

    @property
    def _roots(self) -> float | None:
        """The sum of the errors before and after, of those above 0; None for losses in their own unit."""
        return None if self.squares is None else sum(math.sqrt(max(square, 0.0)) for square in self.squares)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval at a confidence level in (0, 1), in the unit of `value`, with the error of the limit."""
        errors = t_quantile(math.inf, level)
        return self.value - errors * self.error_below, self.value + errors * self.error_above

    def least(self, level: float) -> float:
        """Return the smallest loss that the interval at a level allows, in the unit of `value`: 0 unless it lies above 0."""
        return max(0.0, self.interval(level)[0])


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
        square_errors=(_half_width(change.baseline_ci, level), _half_width(change.quantized_ci, level)),
    )


def _half_width(interval: Interval | None, level: float) -> float:
    """Return the standard error behind a normal interval; 0 where there is none."""
    return 0.0 if interval is None else (interval[1] - interval[0]) / (2 * t_quantile(math.inf, level))


def mean_losses(by_task: Sequence[Mapping[str, Loss]]) -> dict[str, Loss]:
    """Return each metric's mean loss over the tasks that have it, tasks counting alike.

    The NLL of whole texts, which are the tasks without accuracy, is that of a token. It has a mean of its own, `TEXT_NLL`.

    Reference: Zou & Donner 2008 for an interval of a sum from the intervals of its terms.
    """
    by_metric: dict[str, list[Loss]] = {}
    for losses in by_task:
        for name, loss in losses.items():
            is_of_tokens = name == "nll" and "accuracy" not in losses
            by_metric.setdefault(TEXT_NLL if is_of_tokens else name, []).append(loss)
    return {name: _mean(losses) for name, losses in by_metric.items()}


def _mean(losses: Sequence[Loss]) -> Loss:
    k = len(losses)
    below, above = (math.hypot(*(getattr(loss, side) for loss in losses)) / k for side in ("below", "above"))
    variance = sum(loss.above**2 for loss in losses)
    varying = [loss for loss in losses if loss.above > 0]
    squares = [loss.squares for loss in losses if loss.squares]
    before, after = (math.hypot(*(loss.square_errors[side] for loss in losses)) / k for side in (0, 1))
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
        squares=(sum(square for square, _ in squares) / k, sum(square for _, square in squares) / k) if squares else None,
        square_errors=(before, after),
        n_tasks=k,
    )


def is_above_guessing(values: Mapping[str, Difference]) -> bool:
    """Return whether full precision is clearly better than guessing: its accuracy, or the NLL of a text's tokens.

    It counts as better where nobody knows what guessing gives: without choices, and of texts without the vocabulary's size.
    """
    below = values.get(BASELINE_NLL_BELOW_GUESSING)
    if below is not None and below.value is not None:  # of one window there is no standard error
        return below.value > t_quantile(math.inf, GUESSING_LEVEL) * (below.standard_error or 0.0)
    above = values.get(BASELINE_ABOVE_GUESSING)
    if above is None:
        return True
    if above.value is None or above.standard_error is None:
        return False
    return above.value > t_quantile(math.inf, GUESSING_LEVEL) * above.standard_error
