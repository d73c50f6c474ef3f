"""What one number, a softmax temperature, would repair.

Everything is fitted on other folds than it is used on. Questions of one cluster lie in one fold. Numbers at a fitted
temperature hold it fixed in their own interval; the temperature's own interval counts that it is fitted again.
"""

from __future__ import annotations

import math

import numpy as np

from bitsure.metrics.arrays import BoolArray, FloatArray, IntArray
from bitsure.metrics.bootstrap import count_units
from bitsure.metrics.estimation import FEWEST, few_units, standard_error
from bitsure.metrics.point_estimate import INFLUENCE, PointEstimate
from bitsure.metrics.questions import QuestionSet

FOLDS = 5
STEPS = 30
LEAST, MOST = 1e-3, 1e3  # of 1/T


def assign_folds(n: int, clusters: IntArray | None, seed: int) -> IntArray:
    """Return the fold of each question, drawn at random.

    Args:
        n: Number of questions.
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
        seed: Seed of the draw.

    Returns:
        0 … FOLDS − 1, shape (n,); fewer folds where there are fewer clusters.
    """
    units = count_units(n, clusters)
    fold_of_unit = np.random.default_rng(seed).permutation(units) % min(FOLDS, units)
    return fold_of_unit if clusters is None else fold_of_unit[clusters]


def inverse_temperatures(questions: QuestionSet, fold: IntArray) -> FloatArray:
    """Return 1/T for each question: what minimises the negative log-likelihood of the other folds.

    Newton's method on β = 1/T: the derivative of −ln p_G is E_p[z] − E_{p|G}[z], the second Var_p[z] − Var_{p|G}[z]. It runs
    on all questions first; from there each fold is a few steps away. With one fold there is nothing to fit on, and β is 1.

    Args:
        questions: The n questions.
        fold: The fold of each, shape (n,).

    Reference: Guo et al. 2017, section 4.2.
    """
    n_folds = int(fold.max()) + 1
    if n_folds < 2:
        return np.ones(len(questions))
    z = _below_largest(questions)
    overall = _newton(questions, z, 1.0, np.ones(len(questions), dtype=bool))
    return np.array([_newton(questions, z, overall, fold != k) for k in range(n_folds)])[fold]


def temperature_influence(questions: QuestionSet, fold: IntArray, inverse: FloatArray) -> FloatArray:
    """Return n times the derivative of the mean of T over the questions by each question's weight, T being fitted again.

    β solves Σ_j slope_j(β) = 0 over the other folds, so that question i moves it by −slope_i / Σ_j curve_j (the implicit
    function theorem), and T = 1/β by −1/β² of that.

    Args:
        questions: The n questions.
        fold: The fold of each, shape (n,).
        inverse: β of each, shape (n,), from `inverse_temperatures`.

    Returns:
        The influence, shape (n,); NaN where nothing was fitted or the fit ran into its bounds.
    """
    n, total = len(questions), np.zeros(len(questions))
    z = _below_largest(questions)
    for k in range(int(fold.max()) + 1):
        others, beta = fold != k, inverse[np.argmax(fold == k)]
        slope, curve = _derivatives(questions, z, beta)
        if not others.any() or not LEAST < beta < MOST or curve[others].sum() <= 1e-9 * n:
            return np.full(n, np.nan)
        total += (1 - others).mean() * slope * others * n / (beta**2 * curve[others].sum())
    return total


def fitted_temperature(value: float, influence: FloatArray, clusters: IntArray | None, least: float) -> PointEstimate:
    """Return the estimate of a temperature, or of the difference of two.

    Args:
        value: The temperature.
        influence: Each question's influence on it, shape (n,).
        clusters: Each question's cluster, shape (n,), from 0; None if every question is alone.
        least: The smallest value that can be.
    """
    units = count_units(len(influence), clusters)
    if units < FEWEST:
        return PointEstimate(value, math.nan, None, few_units(units, clusters), "none", units=units)
    return PointEstimate(value, standard_error(influence, clusters), None, INFLUENCE, least=least, units=units)


def _below_largest(questions: QuestionSet) -> FloatArray:
    """Return the scores less each question's largest one, shape (m,)."""
    return questions.scores - questions.spread(np.maximum.reduceat(questions.scores, questions.starts[:-1]))


def _newton(questions: QuestionSet, z: FloatArray, beta: float, chosen: BoolArray) -> float:
    """Return the best β for the chosen questions, from a first guess."""
    for _ in range(STEPS):
        slope, curve = (derivative[chosen].mean() for derivative in _derivatives(questions, z, beta))
        step = float(np.clip(slope / max(curve, 1e-9), -beta, beta / 2))
        beta = float(np.clip(beta - step, LEAST, MOST))
        if abs(step) < 1e-4 * beta:  # the next one would be of the order of its square
            break
    return beta


def _derivatives(questions: QuestionSet, z: FloatArray, beta: float) -> tuple[FloatArray, FloatArray]:
    """Return the first and second derivative by β of −ln p_G, shape (n,) each; z are the scores less the largest."""
    starts, weights = questions.starts[:-1], np.exp(beta * z)

    def moments(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        total = np.add.reduceat(weights, starts)
        mean = np.add.reduceat(weights * z, starts) / total
        return mean, np.add.reduceat(weights * z * z, starts) / total - mean**2

    mean, variance = moments(weights)
    if questions.several_gold:
        best = np.maximum.reduceat(np.where(questions.gold, z, -np.inf), starts)  # so that no sum over G is 0
        mean_gold, variance_gold = moments(np.where(questions.gold, np.exp(beta * (z - questions.spread(best))), 0.0))
        return mean - mean_gold, variance - variance_gold
    return mean - z[questions.gold], variance
