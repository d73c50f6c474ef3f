"""Conclusions across models and across random draws.

That a change is significant for one model and not for another is never a finding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.bootstrap import t_interval, t_quantile
from bitsure.metrics.estimation import FEWEST

LEAST_SPREAD = 1e-12  # a standard error below it is rounding


@dataclass(frozen=True)
class Heterogeneity:
    """How much k changes differ.

    Attributes:
        models: k.
        q: Cochran's Q.
        p_value: Its p-value, by χ² with k − 1 degrees of freedom.
        i_squared: The share of the variation that is not error, in [0, 1].
        tau: The standard deviation between models, in the unit of the changes.
    """

    models: int
    q: float
    p_value: float
    i_squared: float
    tau: float


def heterogeneity(values: Sequence[float], errors: Sequence[float]) -> Heterogeneity | None:
    """Return how much changes differ beyond their standard errors; None if fewer than two have an error above 0.

    Q takes the models' errors for independent. Those of models that answered the same questions go together, which makes Q too
    small; contrasts on the same questions do not have that fault.

    Args:
        values: The k changes.
        errors: Their standard errors, in the same unit.

    Reference: Cochran 1954 (Q); Higgins & Thompson 2002 (I² = 1 − (k − 1) / Q); DerSimonian & Laird 1986 (τ², by moments).
    """
    from scipy.stats import chi2

    value, error = np.asarray(values, dtype=float), np.asarray(errors, dtype=float)
    known = np.isfinite(value) & (error > 0)
    if known.sum() < 2:
        return None
    value, weight = value[known], error[known] ** -2.0
    q = float((weight * (value - (weight * value).sum() / weight.sum()) ** 2).sum())
    freedom = len(value) - 1
    others = np.array([np.delete(weight, i).sum() for i in range(len(weight))])
    scale = float((weight * others).sum() / weight.sum())  # Σw − Σw² / Σw, which rounds to 0 where one weight dominates
    tau = math.sqrt(max(0.0, (q - freedom) / scale))
    return Heterogeneity(len(value), q, float(chi2.sf(q, freedom)), max(0.0, 1 - freedom / q) if q else 0.0, tau)


@dataclass(frozen=True)
class MeanOverDraws:
    """A mean over random draws (of calibration data, of a training seed), with an interval for draws and questions both.

    Attributes:
        draws: The number of draws, k.
        value: The mean.
        ci_low: The interval's lower end.
        ci_high: Its upper end.
        standard_error: The mean's standard error.
        between: The standard deviation between draws.
    """

    draws: int
    value: float
    ci_low: float
    ci_high: float
    standard_error: float
    between: float


def over_draws(values: Sequence[float], errors: Sequence[float], level: float, freedom: float = math.inf) -> MeanOverDraws:
    """Return the mean of what k ≥ 2 draws gave on the same questions; draws and questions are both random.

    With crossed random effects the mean's variance is that between draws over k, plus that of the questions. The first is taken
    from the draws themselves. The questions are the same for all draws, so that their errors go together and do not shrink with
    k: at most (if they go together wholly) they are the mean of the single errors, which is what is taken. Both parts count
    what one draw does to one question, so the interval is rather too wide (Owen 2007 counts rows and columns in the same way).
    Its half width is the root of the squared half widths for draws alone, by t with k − 1 degrees of freedom, and for questions
    alone. Degrees of freedom for the sum (Satterthwaite 1946) cover .88 with two draws.

    Args:
        values: What each draw gave, in any unit.
        errors: Their standard errors from the questions.
        level: The confidence level, in (0, 1).
        freedom: Degrees of freedom of the errors; infinitely many are the normal quantile.

    Reference: Clark 1973; Graybill & Wang 1980 for the half width.
    """
    value, error = np.asarray(values, dtype=float), np.asarray(errors, dtype=float)
    k, middle, between = len(value), float(value.mean()), float(value.std(ddof=1))
    of_draws, of_questions = between / math.sqrt(k), float(error.mean())
    total = math.hypot(of_draws, of_questions)
    half = math.hypot(t_quantile(k - 1, level) * of_draws, t_quantile(freedom, level) * of_questions)
    return MeanOverDraws(k, middle, middle - half, middle + half, total, between)


@dataclass(frozen=True)
class Contrast:
    """How much more the second run's mean changed than the first's, on the questions that both were asked.

    Attributes:
        value: The second run's change less the first's.
        ci_low: The interval's lower end.
        ci_high: Its upper end.
        standard_error: The bootstrap's standard error.
        p_value: Of a z-test; None where nothing varies or the questions are too few.
    """

    value: float
    ci_low: float
    ci_high: float
    standard_error: float
    p_value: float | None


def contrasts(
    values: FloatArray, replicates: FloatArray, pairs: Sequence[tuple[int, int]], level: float, units: int
) -> list[Contrast]:
    """Return the contrast of each pair (first, second) of runs that were asked the same questions.

    Args:
        values: The runs' means, shape (runs,).
        replicates: Their means under the same r resamples of the questions, shape (r, runs).
        pairs: Indices of runs.
        level: The confidence level of the intervals, in (0, 1).
        units: How many questions, or clusters of them, were resampled, at least 2. Below `FEWEST` the intervals are t intervals
            and there is no test.
    """
    from scipy.stats import norm

    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    drawn, value = replicates[:, second] - replicates[:, first], values[second] - values[first]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    error = drawn.std(0)
    if units < FEWEST:
        error *= math.sqrt(units / (units - 1))
        low, high = t_interval(value, error, units - 1, level)
    varies = (error > LEAST_SPREAD) & (units >= FEWEST)
    p_value = 2 * norm.sf(np.abs(value) / np.where(varies, error, 1.0))
    columns = (column.tolist() for column in (value, low, high, error, p_value, varies))
    return [
        Contrast(change, start, end, spread, p if tested else None)
        for change, start, end, spread, p, tested in zip(*columns, strict=True)
    ]
