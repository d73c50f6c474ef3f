"""Calibration errors over confidence bins: is the model right as often as it is confident?

In all formulas b is a bin, n_b its number of questions, w_b = n_b / n their share, c̄_b their mean confidence and ȳ_b the share
of them that is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bins import Bins, ConfidentAnswers, sparse_rows
from bitsure.metrics.estimation import standard_error
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.statistic import IntervalKind, SumStatistic

if TYPE_CHECKING:
    from scipy.sparse import csr_array


ROUNDING = 1e-12  # of a sum, as a share of its terms


def expected_calibration_error(bins: Bins) -> SumStatistic[ConfidentAnswers]:
    """Return the expected calibration error Σ_b w_b |ȳ_b − c̄_b| as a statistic, in [0, 1].

    It is the plug-in estimate: biased upward, the more so the fewer questions a bin has.

    Reference: Naeini et al. 2015; Guo et al. 2017, equation 3.
    """
    return SumStatistic(bins.gaps, _mean_absolute_gap, "widest", 0.0, 1.0)


@dataclass(frozen=True)
class DebiasedSquaredError(SumStatistic[ConfidentAnswers]):
    """The debiased squared error, whose standard error comes from the pairs of questions that share a bin.

    The bootstrap adds its own noise to that of the bins: near calibration its standard error is √3 times too large.

    Attributes:
        bins: The confidence bins.
    """

    bins: Bins = field(kw_only=True)

    def sampling_error(
        self, questions: ConfidentAnswers, clusters: IntArray | None, minus: ConfidentAnswers | None = None
    ) -> tuple[float, float]:
        """Return the standard error of the error, or of its difference, and the share of chance in its variance.

        The error is about Σ_{u≠v} H_uv over questions or clusters, with H_uv = Σ_b R_ub R_vb / (n (n_b − 1)) and R_ub the sum
        of correctness less confidence of u in bin b. Leaving each u out counts the variance by chance, 2 Σ_{u≠v} H_uv², twice.
        It is taken of R less the bins' mean gaps, which are no chance: with them, few clusters of a model that is not
        calibrated would lose too much.

        Reference: Efron & Stein 1981 for the jackknife's excess.
        """
        from scipy import sparse

        influence, columns, weights = np.zeros(len(questions)), [], []
        for side, sign in ((questions, 1.0), (minus, -1.0)):
            if side is not None:
                influence += sign * self.value_and_influence(side)[1]
                index, gaps = self.bins.index(side.confidence), side.correct - side.confidence
                counts = np.bincount(index, minlength=len(self.bins))
                means = np.bincount(index, gaps, minlength=len(self.bins)) / np.maximum(counts, 1)
                columns.append(sparse_rows(len(self.bins), (index, gaps - means[index])))
                weights.append(sign / (len(side) * np.maximum(counts - 1, 1)))
        sums, weight = sparse.hstack(columns, format="csr"), np.concatenate(weights)
        if clusters is not None:
            sums = sparse.csr_array((np.ones(len(clusters)), (clusters, np.arange(len(clusters))))) @ sums
        products = (sums.T @ sums).toarray() ** 2
        by_chance = 2 * (weight @ products @ weight - ((sums.multiply(sums) @ weight) ** 2).sum())
        if by_chance < ROUNDING * np.abs(weight) @ products @ np.abs(weight):
            by_chance = 0.0  # two equal models
        variance = max(standard_error(influence, clusters) ** 2 - by_chance, by_chance)
        return math.sqrt(variance), float(by_chance / variance) if variance > 0 else 0.0


def debiased_squared_error(bins: Bins) -> DebiasedSquaredError:
    """Return the debiased squared error Σ_b w_b [(ȳ_b − c̄_b)² − ȳ_b (1 − ȳ_b) / (n_b − 1)], in [−1/4, 1].

    A bin of one question says nothing of its variance and counts 0.

    Reference: Kumar et al. 2019, section 4.
    """

    def error(sums: FloatArray) -> FloatArray:
        counts, shares, confidence, accuracy = _shares(sums)
        noise = accuracy * (1 - accuracy) / np.maximum(counts - 1, 1)
        return _total(shares * np.where(counts > 1, (accuracy - confidence) ** 2 - noise, 0.0))

    return DebiasedSquaredError(bins.table, error, "normal", -0.25, 1.0, bins=bins)


def rms_calibration_error(bins: Bins) -> SumStatistic[ConfidentAnswers]:
    """Return the root mean squared error √(Σ_b w_b (ȳ_b − c̄_b)²), in [0, 1].

    Reference: Hendrycks et al. 2019.
    """

    def error(sums: FloatArray) -> FloatArray:
        _, shares, confidence, accuracy = _shares(sums)
        return np.sqrt(_total(shares * (accuracy - confidence) ** 2))

    return SumStatistic(bins.table, error, "no single", 0.0, 1.0)


def maximum_calibration_error(bins: Bins) -> SumStatistic[ConfidentAnswers]:
    """Return the maximum calibration error max_b |ȳ_b − c̄_b|, in [0, 1].

    Reference: Naeini et al. 2015.
    """

    def largest_gap(sums: FloatArray) -> FloatArray:
        counts, _, confidence, accuracy = _shares(sums)
        largest: FloatArray = np.where(counts > 0, np.abs(accuracy - confidence), 0.0).max(-1)
        return largest

    return SumStatistic(bins.table, largest_gap, "never", 0.0, 1.0)


def classwise_calibration_error(bins: Bins) -> SumStatistic[QuestionSet]:
    """Return the expected calibration error of each choice's own probability, averaged over the choices, in [0, 1].

    It is for questions that all have the same choices, with one right one each: elsewhere a choice's position means nothing.

    Reference: Kull et al. 2019.
    """

    def features(questions: QuestionSet) -> csr_array:
        p, right = questions.p.reshape(len(questions), -1), questions.gold.reshape(len(questions), -1)
        k, b = p.shape[1], len(bins)
        gaps = [(bins.index(p[:, i]) + i * b, right[:, i] - p[:, i]) for i in range(k)]
        return sparse_rows(k * b + 1, *gaps, (k * b, np.full(len(questions), float(k))))

    return SumStatistic(features, _mean_absolute_gap, "no single", 0.0, 1.0)


def brier_parts(bins: Bins) -> dict[str, SumStatistic[ConfidentAnswers]]:
    """Return the parts of the Brier score of "the top choice is right" as statistics, given the confidence's bin.

    The score is reliability Σ w_b (c̄_b − ȳ_b)² − resolution Σ w_b (ȳ_b − ȳ)² + uncertainty ȳ (1 − ȳ).

    Reference: Murphy 1973.
    """

    def part(which: str) -> Callable[[FloatArray], FloatArray]:
        def value(sums: FloatArray) -> FloatArray:
            _, shares, confidence, accuracy = _shares(sums)
            overall = _total(shares * accuracy)
            if which == "reliability":
                return _total(shares * (confidence - accuracy) ** 2)
            if which == "resolution":
                return _total(shares * (accuracy - overall[..., None]) ** 2)
            return overall * (1 - overall)

        return value

    intervals: dict[str, tuple[IntervalKind, float]] = {
        "reliability": ("no single", 1.0),
        "resolution": ("widest", 0.25),
        "uncertainty": ("percentile", 0.25),
    }
    return {
        f"brier_{which}": SumStatistic(bins.table, part(which), interval, 0.0, most)
        for which, (interval, most) in intervals.items()
    }


def errors_if_calibrated(confidence: FloatArray, bins: Bins, draws: int, seed: int) -> FloatArray:
    """Return the plug-in errors that a perfectly calibrated model with these confidences would show.

    Args:
        confidence: Probability of the predicted choice, shape (n,), in [0, 1].
        bins: The bins of `expected_calibration_error`.
        draws: How often correctness is drawn from Bernoulli(confidence).
        seed: Seed of the draws.

    Returns:
        The expected calibration error of each draw, shape (draws,).
    """
    rng, index = np.random.default_rng(seed), bins.index(confidence)
    errors = [
        np.abs(np.bincount(index, (rng.random(len(confidence)) < confidence) - confidence, len(bins))).sum()
        for _ in range(draws)
    ]
    return np.array(errors) / len(confidence)


def _mean_absolute_gap(sums: FloatArray) -> FloatArray:
    """Return the sum of the absolute gaps over the number of questions, which is in the last column."""
    total: FloatArray = np.abs(sums[..., :-1]).sum(-1)
    return total / sums[..., -1]


def _total(values: FloatArray) -> FloatArray:
    total: FloatArray = values.sum(-1)
    return total


def _shares(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return n_b, w_b, c̄_b and ȳ_b from the sums of `Bins.table`; an empty bin has share 0."""
    counts, confidence, correct = np.split(sums, 3, axis=-1)
    divisor = np.where(counts > 0, counts, 1.0)
    return counts, counts / counts.sum(-1, keepdims=True), confidence / divisor, correct / divisor
