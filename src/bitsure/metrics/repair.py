"""What one number, a temperature, would mend, and what deferring unsure questions to the full model would.

Everything is fitted on other folds than it is used on. Questions of one cluster lie in one fold.
"""

from __future__ import annotations

import numpy as np

from bitsure.metrics.confidence import Questions

FOLDS = 5
STEPS = 30


def folds(n: int, clusters: np.ndarray | None, seed: int) -> np.ndarray:
    """(n,) the fold of each question, 0 … FOLDS − 1; fewer where there are fewer clusters."""
    clusters = np.arange(n) if clusters is None else clusters
    n_clusters = int(clusters.max()) + 1
    return (np.random.default_rng(seed).permutation(n_clusters) % min(FOLDS, n_clusters))[clusters]


def inverse_temperatures(asked: Questions, fold: np.ndarray) -> np.ndarray:
    """(n,) 1/T for each question: what minimises the negative log-likelihood of the other folds (Guo et al. 2017).

    Newton's method on β = 1/T: the derivative of −ln p_G is E_p[z] − E_{p|G}[z], the second Var_p[z] − Var_{p|G}[z]. With one
    fold there is nothing to fit on, and β is 1.
    """
    n_folds = int(fold.max()) + 1
    if n_folds < 2:
        return np.ones(len(asked))
    best = np.ones(n_folds)
    for k in range(n_folds):
        others = fold != k
        beta = 1.0
        for _ in range(STEPS):
            slope, curve = _derivatives(asked, beta, others)
            step = np.clip(slope / max(curve, 1e-9), -0.5 * beta, beta)
            beta = float(np.clip(beta - step, 1e-3, 1e3))
            if abs(step) < 1e-6 * beta:
                break
        best[k] = beta
    return best[fold]


def _derivatives(asked: Questions, beta: float, chosen: np.ndarray) -> tuple[float, float]:
    """First and second derivative by β of the mean −ln p_G over the chosen questions."""
    at = asked.at_temperature(np.full(len(asked), beta))
    starts, z = asked.starts[:-1], asked.scores - asked.spread(np.maximum.reduceat(asked.scores, asked.starts[:-1]))
    mean = np.add.reduceat(at.p * z, starts)
    variance = np.add.reduceat(at.p * z**2, starts) - mean**2
    within = np.where(asked.gold, np.exp(at.log_p + at.spread(at.nll)), 0.0)
    mean_gold = np.add.reduceat(within * z, starts)
    variance_gold = np.add.reduceat(within * z**2, starts) - mean_gold**2
    return float((mean - mean_gold)[chosen].mean()), float((variance - variance_gold)[chosen].mean())


def deferred(confidence: np.ndarray, fold: np.ndarray, share: float) -> np.ndarray:
    """(n,) of 0 and 1: which questions go to the full model so that about `share` do; thresholds come from the other folds."""
    chosen = np.zeros(len(confidence))
    for k in range(int(fold.max()) + 1):
        others = fold != k if fold.max() else fold == k
        chosen[fold == k] = confidence[fold == k] < np.quantile(confidence[others], share)
    return chosen
