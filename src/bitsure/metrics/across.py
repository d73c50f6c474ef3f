"""What may be said across models and across random draws. "Significant here, not there" is never a finding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Heterogeneity:
    """Of k changes: Cochran's Q (its p-value by χ² with k − 1 degrees of freedom), I² in [0, 1], and τ, the standard deviation
    between models, in the unit of the changes."""

    models: int
    q: float
    p_value: float
    i_squared: float
    tau: float


def heterogeneity(values: Sequence[float], errors: Sequence[float]) -> Heterogeneity | None:
    """How much changes differ beyond their standard errors; None of fewer than two with an error above 0.

    Q: Cochran (1954). I² = 1 − (k − 1) / Q: Higgins & Thompson (2002). τ²: DerSimonian & Laird (1986), their moment estimate.
    Q takes the models' errors for independent. Those of models that were asked the same questions go together, which makes Q
    too small: the contrasts on the same questions do not have that fault.
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
    scale = float((weight * others).sum() / weight.sum())  # Σw − Σw² / Σw, which one weight above all others would make 0
    tau = math.sqrt(max(0.0, (q - freedom) / scale))
    return Heterogeneity(len(value), q, float(chi2.sf(q, freedom)), max(0.0, 1 - freedom / q) if q else 0.0, tau)


@dataclass(frozen=True)
class OverDraws:
    """A mean over k random draws (of calibration data, of a training seed), with an interval for draws and questions both."""

    draws: int
    value: float
    ci_low: float
    ci_high: float
    standard_error: float
    between: float  # standard deviation between draws


def over_draws(values: Sequence[float], errors: Sequence[float], level: float) -> OverDraws:
    """The mean of what k ≥ 2 draws gave on the same questions; draws and questions are both random (Clark 1973).

    With crossed random effects the mean's variance is that between draws over k, and that of the questions. The first is taken
    from the draws themselves. The questions are the same for all, so that their errors go together and do not shrink with k: at
    the most (if they go together wholly) they are the mean of the single errors, which is what is taken. Both parts count
    what one draw does to one question, so the interval is rather too wide (Owen 2007 counts rows and columns so too).
    Degrees of freedom by Satterthwaite (1946): of two draws, little can be known.
    """
    from scipy.special import stdtrit  # the quantile of Student's t

    value, error = np.asarray(values, dtype=float), np.asarray(errors, dtype=float)
    k, middle, between = len(value), float(value.mean()), float(value.std(ddof=1))
    of_draws, of_questions = between**2 / k, float(error.mean()) ** 2
    total = math.sqrt(of_draws + of_questions)
    freedom = (k - 1) * (total**2 / of_draws) ** 2 if of_draws else math.inf  # the questions' own are many
    half = float(stdtrit(freedom, (1 + level) / 2)) * total
    return OverDraws(k, middle, middle - half, middle + half, total, between)


@dataclass(frozen=True)
class Contrast:
    """By how much more the second run's mean changed than the first's, on the n questions that both were asked."""

    value: float
    ci_low: float
    ci_high: float
    standard_error: float
    p_value: float | None  # of a z-test; None without spread


def contrasts(values: np.ndarray, replicates: np.ndarray, pairs: Sequence[tuple[int, int]], level: float) -> list[Contrast]:
    """Of each pair (first, second) of runs; values: (runs,) their means, replicates: (r, runs) under the same r resamples of
    the questions, which all of them were asked.
    """
    from scipy.stats import norm

    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    drawn, value = replicates[:, second] - replicates[:, first], values[second] - values[first]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    error = drawn.std(0)
    spread = error > 1e-12
    p_value = 2 * norm.sf(np.abs(value) / np.where(spread, error, 1.0))
    numbers = zip(*(column.tolist() for column in (value, low, high, error, p_value)), strict=True)
    return [Contrast(*found, p if some else None) for (*found, p), some in zip(numbers, spread, strict=True)]
