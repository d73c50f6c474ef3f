"""Statistics estimated from one set of questions, or as a difference of two, with standard errors and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.leave_one_out import leave_one_out_influence
from bitsure.metrics.point_estimate import INFLUENCE, NO_INTERVAL, IntervalShape, PointEstimate
from bitsure.metrics.statistic import MEANS, IntervalKind, Statistic, SumStatistic

LEAST_DEVIATION = 1e-12  # a spread below it is rounding
FEWEST = 30  # questions, or clusters of them, below which only means have an interval and nothing an approximate test
FEW_SHAPES: dict[IntervalKind, IntervalShape] = {
    "mean": "t",
    "log_mean": "log t",
    "positive": "log t",
    "proportion": "score",
}
SHAPES: dict[IntervalKind, IntervalShape] = {
    "proportion": "score",
    "mean": "percentile",
    "log_mean": "percentile",
    "percentile": "percentile",
    "widest": "widest",
    "no single": "none",
    "never": "none",
}
FEW_NAMES: dict[IntervalShape, str] = {"t": "t", "log t": "t, on the logarithm", "score": "Wilson score"}
NAMES: dict[IntervalShape, str] = {
    "score": "percentile bootstrap, at least as wide as Wilson's",
    "percentile": "percentile bootstrap",
    "widest": "percentile and basic bootstrap, the wider ends",
    "t": "normal bootstrap",
    "none": f"{NO_INTERVAL}no method covers",
}


def estimate(
    statistics: Mapping[str, Statistic[Any]],
    questions: Any,
    weights: FloatArray | None,
    clusters: IntArray | None = None,
    minus: Any | None = None,
) -> dict[str, PointEstimate]:
    """Return each statistic of a set of questions, or how much larger it is than that of another set.

    Below `FEWEST` questions, or clusters of them, means have t intervals, proportions Wilson's, and other statistics none. From
    there on intervals resample.

    Args:
        statistics: Name → statistic.
        questions: The n questions.
        weights: How often each question counts in each resample, shape (n, r). If None, and for statistics that are no
            functions of sums, the standard error comes from the influence of each question.
        clusters: Each question's cluster, shape (n,), from 0; questions of one cluster err together.
        minus: The same questions answered by another model; None for the statistics themselves instead of differences.
    """
    resampled = (
        {name: sums for name, statistic in statistics.items() if (sums := statistic.as_sums())} if weights is not None else {}
    )
    replicates = _replicates(resampled, questions, weights)
    if minus is not None:
        other = _replicates(resampled, minus, weights)
        with np.errstate(invalid="ignore"):  # a number that exists on neither side has no difference
            replicates = {name: values - other[name] for name, values in replicates.items()}
    return {
        name: _alone(statistic, questions, replicates.get(name), clusters)
        if minus is None
        else _difference(statistic, questions, minus, replicates.get(name), clusters)
        for name, statistic in statistics.items()
    }


@dataclass(frozen=True)
class _Fit:
    """What an interval is made from; the fields are those of `PointEstimate`."""

    standard_error: float
    replicates: FloatArray | None
    method: str
    shape: IntervalShape
    freedom: float = math.inf
    chance_share: float = 0.0


def _alone(
    statistic: Statistic[Any], questions: Any, replicates: FloatArray | None, clusters: IntArray | None
) -> PointEstimate:
    units = _units(statistic, questions, clusters)
    fit = _fit(
        statistic.interval,
        units,
        clusters,
        replicates,
        lambda: _influence(statistic, questions),
        lambda: statistic.sampling_error(questions, clusters),
    )
    value = statistic.value(questions)
    return PointEstimate(value, **vars(fit), least=statistic.least, most=statistic.most, units=units)


def _influence(statistic: Statistic[Any], questions: Any) -> FloatArray:
    """Return each question's influence, shape (n,); that of an exponential by leaving questions out of its logarithm."""
    sums = statistic.as_sums() if statistic.interval == "log_mean" else None
    if sums is None:
        return statistic.value_and_influence(questions)[1]
    logarithm, influence = leave_one_out_influence(sums.features(questions), lambda rows: np.log(sums.from_sums(rows)))
    return math.exp(logarithm) * influence


def _difference(
    statistic: Statistic[Any], questions: Any, minus: Any, replicates: FloatArray | None, clusters: IntArray | None
) -> PointEstimate:
    (value, influence), (other, other_influence) = (statistic.value_and_influence(side) for side in (questions, minus))
    difference, influence = value - other, influence - other_influence
    units = min(_units(statistic, side, clusters) for side in (questions, minus))
    fit = _fit(
        "mean" if statistic.interval in MEANS else statistic.interval if statistic.interval == "never" else "normal",
        units,
        clusters,
        replicates,
        lambda: influence,
        lambda: statistic.sampling_error(questions, clusters, minus),
    )
    span = statistic.most - statistic.least
    return PointEstimate(
        difference,
        **vars(fit),
        least=-span,
        most=span,
        units=units,
        sides=(value, other),
        standardized=standardized(difference, influence, clusters),
        variance_error=variance_error(influence, clusters),
    )


def _units(statistic: Statistic[Any], questions: Any, clusters: IntArray | None) -> int:
    """Return how many questions a statistic is taken over, or how many clusters hold one of them."""
    if clusters is None:
        return statistic.count(questions)
    members = statistic.members(questions)
    return len(np.unique(clusters if members is None else clusters[members > 0]))


def _fit(
    kind: IntervalKind,
    units: int,
    clusters: IntArray | None,
    replicates: FloatArray | None,
    influence: Callable[[], FloatArray],
    sampling_error: Callable[[], tuple[float, float] | None],
) -> _Fit:
    """Return the standard error and the interval that fit a kind of statistic.

    Args:
        kind: The kind of statistic.
        units: How many questions or clusters it is taken over.
        clusters: Each question's cluster, shape (n,).
        replicates: Its values under resampling, shape (r,).
        influence: Returns the influence of each question, shape (n,).
        sampling_error: Returns the standard error and its chance share where the bootstrap's is wrong, else None.
    """
    if units < 2 or (units < FEWEST and kind not in MEANS):
        return _Fit(math.nan, None, few_units(units, clusters), "none")
    if units < FEWEST and kind == "proportion" and clusters is None:
        return _Fit(standard_error(influence(), None), None, FEW_NAMES["score"], "score")
    if units < FEWEST or kind == "positive":
        error = standard_error(influence(), clusters) * math.sqrt(units / (units - 1))
        shape = FEW_SHAPES[kind]
        return _Fit(error, None, FEW_NAMES[shape], shape, units - 1)
    shape = SHAPES.get(kind, "t")
    if (of_pairs := sampling_error()) is not None:
        error, chance_share = of_pairs
        return _Fit(error, None, "normal, by the variance of pairs", "t", chance_share=chance_share)
    if replicates is None:
        method = NAMES["none"] if shape == "none" else INFLUENCE
        return _Fit(standard_error(influence(), clusters), None, method, shape if shape in ("none", "score") else "t")
    return _Fit(_spread(replicates), replicates, NAMES[shape], shape)


def few_units(units: int, clusters: IntArray | None) -> str:
    """Return in words why so few questions, or clusters of them, have no interval."""
    unit = "question" if clusters is None else "cluster"
    return f"{NO_INTERVAL}{units} {unit}{'' if units == 1 else 's'}"


def unless_few(estimates: Mapping[str, PointEstimate], clusters: IntArray | None) -> dict[str, PointEstimate]:
    """Return estimates of what was fitted to the questions, without intervals below `FEWEST` questions or clusters.

    Args:
        estimates: Name → estimate.
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
    """
    return {
        name: of_metric
        if of_metric.units >= FEWEST
        else replace(of_metric, standard_error=math.nan, method=few_units(of_metric.units, clusters), shape="none")
        for name, of_metric in estimates.items()
    }


def _spread(replicates: FloatArray) -> float:
    finite = replicates[np.isfinite(replicates)]
    return float(finite.std()) if len(finite) else math.nan


def standard_error(influence: FloatArray, clusters: IntArray | None) -> float:
    """Return the standard error √(Σ_c (Σ_{i∈c} ψ_i)²) / n of a number with influence ψ.

    Args:
        influence: Each question's influence, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0; None if every question is a cluster of its own.

    Reference: Jaeckel 1972, the infinitesimal jackknife.
    """
    together = influence if clusters is None else np.bincount(clusters, influence)
    return float(np.sqrt((together**2).sum()) / len(influence))


def variance_error(influence: FloatArray, clusters: IntArray | None) -> float:
    """Return the standard error of the variance of a number with influence ψ, as a share of it; NaN for a variance of 0.

    Args:
        influence: ψ, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0; None if every question is a cluster of its own.
    """
    squares = (influence if clusters is None else np.bincount(clusters, influence)) ** 2
    total = float(squares.sum())
    return float(np.sqrt(((squares - squares.mean()) ** 2).sum())) / total if total > 0 else math.nan


def standardized(difference: float, influence: FloatArray, clusters: IntArray | None) -> tuple[float, float]:
    """Return a difference in standard deviations of the questions' influence on it, and the error of that ratio.

    For a mean the influence ψ is a question's difference less the mean one, and the ratio d is Cohen's d_z. The error follows
    from d's own influence, ψ / s − d (ψ² / s² − 1) / 2, in which what ψ is made of (a bin's mean, a rank) is held fixed.

    Args:
        difference: The difference d · s.
        influence: ψ, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0; None if every question is a cluster of its own.

    Returns:
        d and its standard error; NaN where the influence does not vary.
    """
    deviation = float(influence.std(ddof=1)) if len(influence) > 1 else math.nan
    if not deviation > LEAST_DEVIATION:
        return math.nan, math.nan
    scaled, ratio = influence / deviation, float(difference) / deviation
    return ratio, standard_error(scaled - ratio * (scaled**2 - 1) / 2, clusters)


def _replicates(
    statistics: Mapping[str, SumStatistic[Any]], questions: Any, weights: FloatArray | None
) -> dict[str, FloatArray]:
    """Return each statistic's values under resampling, shape (r,).

    Reading the weights takes most of the time: features that several statistics share are summed once, and all dense ones go
    through one matrix product.
    """
    features = {statistic.features: statistic.features(questions) for statistic in statistics.values()}
    dense = {key: values for key, values in features.items() if isinstance(values, np.ndarray)}
    sums = {key: (values.T @ weights).T for key, values in features.items() if key not in dense}
    if dense:
        ends = np.cumsum([values.shape[1] for values in dense.values()])
        together = np.concatenate(list(dense.values()), axis=1).T @ weights
        sums |= zip(dense, np.split(together.T, ends[:-1], axis=1), strict=True)
    return {name: statistic.from_sums(sums[statistic.features]) for name, statistic in statistics.items()}
