"""Which of several quantizers of one model may be shipped, after looking at all of them?

The losses of all candidates are bounded together, so that a choice among them is as safe as a verdict on one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitsure.comparison.questions_needed import Distance, needed_growth
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bootstrap import count_units, t_quantile
from bitsure.metrics.estimation import FEWEST
from bitsure.results.verdict import INFERIOR, NON_INFERIOR, UNDECIDED, Decision, QuestionsNeeded

DRAWS = 20_000  # of the largest error among the candidates


@dataclass(frozen=True)
class TaskLosses:
    """What k candidates lost on the same n questions of one task.

    Attributes:
        losses: Full precision right (1 or 0) − candidate right, shape (n, k), in −1, 0, 1.
        clusters: Each question's cluster, shape (n,), from 0; None where every question is alone.
    """

    losses: FloatArray
    clusters: IntArray | None = None

    @property
    def units(self) -> int:
        """The number of clusters, or of questions where every one is alone."""
        return count_units(len(self.losses), self.clusters)


@dataclass(frozen=True)
class CandidateVerdict:
    """One candidate's mean loss of accuracy over the tasks, held against the margin.

    Attributes:
        verdict: Non-inferior where `ci_high` is below the margin, inferior where `ci_low` is above it, else undecided.
        loss: The mean over tasks, in accuracy; below 0 for a gain.
        ci_low: The lower end of an interval that holds for all candidates at once; NaN for a task of one question.
        ci_high: Its upper end.
        needed: What would decide it; None where it is decided, or a task has too few questions for a guess.
    """

    verdict: Decision
    loss: float
    ci_low: float
    ci_high: float
    needed: QuestionsNeeded | None


@dataclass(frozen=True)
class QuantizerChoice:
    """The choice among k candidates.

    Attributes:
        candidates: The verdict on each, in the order given.
        fit: Indices of the non-inferior candidates, the smallest first.
    """

    candidates: tuple[CandidateVerdict, ...]
    fit: tuple[int, ...]


def choose(tasks: Sequence[TaskLosses], sizes: Sequence[float], margin: float, level: float, seed: int) -> QuantizerChoice:
    """Return which candidates' mean loss of accuracy over the tasks is surely within the margin, the smallest first.

    The chance that any interval misses its true loss is 1 − level over all candidates together, so a candidate beyond the
    margin is among them no more often than that. Candidates of one size are ordered by the upper ends of their intervals. So
    that no interval shrinks to a point where no answer flipped, z² / n² is added to each task's variance, with the critical
    value z: the score interval of a share that was never seen ends at about z² / n (Wilson 1927).

    Args:
        tasks: The candidates' losses on each task, at least one task.
        sizes: The size of each of the k candidates, in any unit.
        margin: The largest loss of accuracy that is small enough to ship, above 0.
        level: The simultaneous confidence level, in (0, 1).
        seed: Seed of the bootstrap.
    """
    losses = np.mean([task.losses.mean(0) for task in tasks], axis=0)
    covariance = np.sum([_covariance(task) for task in tasks], axis=0) / len(tasks) ** 2
    units = min(task.units for task in tasks)
    critical = _critical_value(covariance, units - 1, level, seed)
    rare = critical**2 * sum(len(task.losses) ** -2 for task in tasks) / len(tasks) ** 2
    errors = np.sqrt(np.diag(covariance) + rare)
    spread = t_quantile(math.inf, level) * _relative_error_of_variance(tasks, np.diag(covariance))
    bounds = _Bounds(critical, rare, margin, sum(len(task.losses) for task in tasks))
    verdicts = []
    for i, (loss, error) in enumerate(zip(losses.tolist(), errors.tolist(), strict=True)):
        low, high = loss - critical * error, loss + critical * error
        verdict, needed = UNDECIDED, None
        if units >= FEWEST:
            verdict = NON_INFERIOR if high < margin else INFERIOR if low > margin else UNDECIDED
            needed = bounds.needed(float(covariance[i, i]), float(spread[i]), max(0.0, low)) if verdict == UNDECIDED else None
        verdicts.append(CandidateVerdict(verdict, loss, low, high, needed))
    fit = [i for i, candidate in enumerate(verdicts) if candidate.verdict == NON_INFERIOR]
    fit.sort(key=lambda i: (sizes[i], verdicts[i].ci_high))
    return QuantizerChoice(tuple(verdicts), tuple(fit))


def _cluster_sums(task: TaskLosses) -> FloatArray:
    """Return the sums of the losses less their means over each cluster, shape (units, k)."""
    centred: FloatArray = task.losses - task.losses.mean(0)
    if task.clusters is None:
        return centred
    sums = np.zeros((task.units, centred.shape[1]))
    np.add.at(sums, task.clusters, centred)
    return sums


def _covariance(task: TaskLosses) -> FloatArray:
    """Return the covariance of the candidates' mean losses on one task, shape (k, k); NaN for a single unit."""
    sums, units = _cluster_sums(task), task.units
    scale = units / (units - 1) if units > 1 else math.nan
    covariance: FloatArray = sums.T @ sums / len(task.losses) ** 2 * scale
    return covariance


def _critical_value(covariance: FloatArray, freedom: int, level: float, seed: int) -> float:
    """Return how many standard errors around each loss hold all true losses at once.

    The multiplier bootstrap gives each question (or cluster) one random normal weight, the same for all candidates. Given the
    data, its replicates of the candidates' errors are normal with the candidates' covariance, and are drawn as such. The
    critical value is the quantile of the largest one; it is not below that of a single candidate.

    Args:
        covariance: The candidates' covariance, shape (k, k).
        freedom: Degrees of freedom of the variances.
        level: The simultaneous confidence level, in (0, 1).
        seed: Seed of the draws.

    Reference: Chernozhukov, Chetverikov & Kato 2013 (multiplier bootstrap of maxima); Hothorn, Bretz & Westfall 2008.
    """
    if freedom < 1:
        return math.nan
    errors = np.sqrt(np.diag(covariance))
    varying = covariance[np.ix_(errors > 0, errors > 0)] / np.outer(errors[errors > 0], errors[errors > 0])
    single = t_quantile(freedom, level)
    if not len(varying):
        return single
    rng = np.random.default_rng(seed)
    draws = rng.multivariate_normal(np.zeros(len(varying)), varying, DRAWS, check_valid="ignore", method="eigh")
    draws /= np.sqrt(rng.chisquare(freedom, DRAWS) / freedom)[:, None]
    return max(float(np.quantile(np.abs(draws).max(1), level)), single)


def _relative_error_of_variance(tasks: Sequence[TaskLosses], variances: FloatArray) -> FloatArray:
    """Return the standard error of each candidate's variance of the mean loss, as a share of it; 0 where nothing varies.

    Args:
        tasks: The candidates' losses on each task.
        variances: The variances of their mean losses, shape (k,).
    """
    squared = np.zeros(len(variances))
    for task in tasks:
        squares = _cluster_sums(task) ** 2
        squared += ((squares - squares.mean(0)) ** 2).sum(0) / len(task.losses) ** 4
    errors = np.sqrt(squared) / len(tasks) ** 2
    return np.divide(errors, variances, out=np.zeros_like(errors), where=variances > 0)


@dataclass(frozen=True)
class _Bounds:
    """What the intervals of all candidates have in common.

    Attributes:
        critical: How many standard errors they reach.
        rare: What is added to the variances for flips too rare to be seen.
        margin: The largest loss that is small enough to ship.
        questions: How many questions there were.
    """

    critical: float
    rare: float
    margin: float
    questions: int

    def needed(self, variance: float, half: float, loss: float) -> QuestionsNeeded:
        """Return how many more questions show that a candidate is within the margin.

        Args:
            variance: The variance of its mean loss.
            half: Half the width of the interval of that variance's logarithm.
            loss: The least that its interval allows it to have lost.
        """

        def more(end: float) -> float:
            growth = needed_growth([Distance(self.margin - loss, variance * math.exp(end), self.rare)], self.critical)
            return self.questions * max(0.0, growth - 1)

        return QuestionsNeeded(if_lossless=more(0.0), low=more(-half), high=more(half))
