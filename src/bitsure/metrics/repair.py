"""What one number, a temperature, would mend, and what deferring unsure questions to the full model would.

Everything is fitted on other folds than it is used on. Questions of one cluster lie in one fold. What is computed at a fitted
temperature has it fixed in its own interval; the temperature's interval is of fitting it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitsure.metrics.confidence import Questions

FOLDS = 5
STEPS = 30
LEAST, MOST = 1e-3, 1e3  # of 1/T
FULL_BITS = 16  # of a weight in full precision
UNKNOWN_COST = 0.25  # of a quantized answer: 4 bits of 16


def folds(n: int, clusters: np.ndarray | None, seed: int) -> np.ndarray:
    """(n,) the fold of each question, 0 … FOLDS − 1; fewer where there are fewer clusters."""
    clusters = np.arange(n) if clusters is None else clusters
    n_clusters = int(clusters.max()) + 1
    return (np.random.default_rng(seed).permutation(n_clusters) % min(FOLDS, n_clusters))[clusters]


def inverse_temperatures(asked: Questions, fold: np.ndarray) -> np.ndarray:
    """(n,) 1/T for each question: what minimises the negative log-likelihood of the other folds (Guo et al. 2017).

    Newton's method on β = 1/T: the derivative of −ln p_G is E_p[z] − E_{p|G}[z], the second Var_p[z] − Var_{p|G}[z]. It runs
    on all questions first; from there each fold is a few steps away. With one fold there is nothing to fit on, and β is 1.
    """
    n_folds = int(fold.max()) + 1
    if n_folds < 2:
        return np.ones(len(asked))
    z = asked.scores - asked.spread(np.maximum.reduceat(asked.scores, asked.starts[:-1]))
    overall = _newton(asked, z, 1.0, np.ones(len(asked), dtype=bool))
    return np.array([_newton(asked, z, overall, fold != k) for k in range(n_folds)])[fold]


def temperature_influence(asked: Questions, fold: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """(n,) by how much the mean of T over the questions changes with each question's weight, times n, T being fitted again.

    inverse: (n,) as `inverse_temperatures` gave it. β solves Σ_j slope_j(β) = 0 over the other folds, so that question i moves
    it by −slope_i / Σ_j curve_j (the implicit function theorem), and T = 1/β by −1/β² of that. NaN where nothing was fitted or
    the fit ran into its bounds.
    """
    n, total = len(asked), np.zeros(len(asked))
    z = asked.scores - asked.spread(np.maximum.reduceat(asked.scores, asked.starts[:-1]))
    for k in range(int(fold.max()) + 1):
        others, beta = fold != k, inverse[np.argmax(fold == k)]
        slope, curve = _derivatives(asked, z, beta)
        if not others.any() or not LEAST < beta < MOST or curve[others].sum() <= 1e-9 * n:
            return np.full(n, np.nan)
        total += (1 - others).mean() * slope * others * n / (beta**2 * curve[others].sum())
    return total


def _newton(asked: Questions, z: np.ndarray, beta: float, chosen: np.ndarray) -> float:
    """The best β for the chosen questions, from a first guess."""
    for _ in range(STEPS):
        slope, curve = (derivative[chosen].mean() for derivative in _derivatives(asked, z, beta))
        step = float(np.clip(slope / max(curve, 1e-9), -beta, beta / 2))
        beta = float(np.clip(beta - step, LEAST, MOST))
        if abs(step) < 1e-4 * beta:  # the next one would be of the order of its square
            break
    return beta


def _derivatives(asked: Questions, z: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the first and second derivative by β of −ln p_G; z are the scores less each question's largest."""
    starts, weights = asked.starts[:-1], np.exp(beta * z)

    def moments(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = np.add.reduceat(weights, starts)
        mean = np.add.reduceat(weights * z, starts) / total
        return mean, np.add.reduceat(weights * z * z, starts) / total - mean**2

    if asked.several_gold:
        best = np.maximum.reduceat(np.where(asked.gold, z, -np.inf), starts)  # so that no sum over G is 0
        mean_gold, variance_gold = moments(np.where(asked.gold, np.exp(beta * (z - asked.spread(best))), 0.0))
    else:
        mean_gold, variance_gold = z[asked.gold], 0.0
    mean, variance = moments(weights)
    return mean - mean_gold, variance - variance_gold


def deferred(confidence: np.ndarray, fold: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """(n, len(shares)) of bool: which questions go to the full model so that about such a share does, the least sure ones.

    The thresholds on the quantized model's confidence (n,) come from the other folds.
    """
    chosen = np.zeros((len(confidence), len(shares)), dtype=bool)
    for k in range(int(fold.max()) + 1):
        others = fold != k if fold.max() else fold == k
        chosen[fold == k] = confidence[fold == k, None] < np.quantile(confidence[others], shares)
    return chosen


def cost_of_quantized(given: float | None, bits_per_weight: float | None) -> float:
    """What an answer of the quantized model costs, one of the full model costing 1.

    If it is not given, the share of weights' bits that are moved for it: of 16 bits a weight, or a quarter if it is not known.
    """
    if given is not None:
        return given
    return bits_per_weight / FULL_BITS if bits_per_weight else UNKNOWN_COST
