"""The study's numbers as its published notebook computes them, artefacts included (Proskurina et al. 2024).

They are reported in addition to the corrected metrics, to compare with the study's printed figures and to show its artefacts:
- with two choices, `ace` holds confidence against the label (0 or 1) and not against being right, and `mce` is signed;
- with more, `ace` compares confidence with the share of one true class that was predicted, and what lies above the last
  threshold falls into the first range; `mce` and `sce` never visit the bin of the surest questions;
- entropy is in bits, and NaN where a probability is 0; questions with another number of choices than the first are left out.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.records.record import flat_column

BINS, RANGES, SCE_BINS = 100, 15, 15


def gold_probability(records: pa.Table) -> FloatArray:
    """Return the probability of the (first) right choice of each question that is kept, shape (N,)."""
    p, gold = probabilities(records)
    of_gold: FloatArray = p[np.arange(len(p)), gold]
    return of_gold


def kept(records: pa.Table) -> IntArray:
    """Return the rows with as many choices as the first one, shape (N,)."""
    widths = np.diff(flat_column(records, "choice_logprobs")[1])
    return np.flatnonzero(widths == widths[0])


def probabilities(records: pa.Table) -> tuple[FloatArray, IntArray]:
    """Return the choices' probabilities, shape (N, K), and the index of the (first) right choice, shape (N,)."""
    from scipy.special import softmax

    scores, starts = flat_column(records, "choice_logprobs")
    gold, first = flat_column(records, "gold")
    rows = kept(records)
    p: FloatArray = softmax(scores[starts[rows, None] + np.arange(starts[1])], axis=1)
    return p, gold[first[:-1]][rows]


def paper_numbers(p: FloatArray, gold: IntArray) -> dict[str, float]:
    """Return the notebook's numbers.

    Args:
        p: The choices' probabilities, shape (N, K).
        gold: The index of the right choice, shape (N,).

    Returns:
        Name → number: conf, conf_true, c_pos, c_neg, entropy, ace and mce; sce with more than two choices.
    """
    confidence, prediction = p.max(1), p.argmax(1)
    right = prediction == gold
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = {
            "conf": confidence.mean(),
            "conf_true": p[np.arange(len(p)), gold].mean(),
            "c_pos": confidence[right].mean() if right.any() else np.nan,
            "c_neg": confidence[~right].mean() if not right.all() else np.nan,
            "entropy": -(p * np.log2(p)).sum(1).mean(),
        }
    if p.shape[1] == 2:
        numbers |= _two_choices(confidence, gold)
    else:
        numbers |= {
            "ace": _adaptive(confidence, prediction, gold, p.shape[1]),
            "mce": _per_class(confidence, prediction, gold, p.shape[1], BINS)[0],
            "sce": _per_class(confidence, prediction, gold, p.shape[1], SCE_BINS)[1],
        }
    return {name: float(value) for name, value in numbers.items()}


def _two_choices(confidence: FloatArray, gold: IntArray) -> dict[str, float]:
    """Return ace and mce over the bins [i/100, (i+1)/100) of confidence; the label 0/1 stands where correctness should."""
    gaps, shares = np.zeros(BINS), np.zeros(BINS)
    for i in range(BINS):
        chosen = (confidence >= i / BINS) & (confidence < (i + 1) / BINS)
        if chosen.any():
            gaps[i], shares[i] = confidence[chosen].mean() - gold[chosen].mean(), chosen.sum() / len(gold)
    return {"ace": float(np.sum(np.abs(gaps) * shares)), "mce": gaps[shares > 0].max(initial=-np.inf)}


def _adaptive(confidence: FloatArray, prediction: IntArray, gold: IntArray, n_classes: int) -> float:
    """Return ace over 15 ranges.

    A question belongs to the first range whose threshold its confidence does not exceed, or to range 0.
    """
    thresholds = np.sort(confidence)[np.arange(RANGES) * (len(confidence) // RANGES)]
    ranges = np.argmax(confidence[:, None] <= thresholds, axis=1)  # 0 where none is
    total = 0.0
    for r in range(RANGES):
        for k in range(n_classes):
            chosen = (ranges == r) & (gold == k)
            if chosen.any():
                total += abs((prediction[chosen] == k).mean() - confidence[chosen].mean())
    return total / (RANGES * n_classes)


def _per_class(
    confidence: FloatArray, prediction: IntArray, gold: IntArray, n_classes: int, n_bins: int
) -> tuple[float, float]:
    """Return the largest gap, and the weighted sum of gaps divided by K, over classes and the bins 0 … n − 1 of 1 … n."""
    bins = np.digitize(confidence, np.arange(n_bins + 1) * (1 / n_bins))
    worst, total = -1.0, 0.0
    for b in range(n_bins):
        for k in range(n_classes):
            chosen = (bins == b) & (gold == k)
            if chosen.any():
                gap = abs((prediction[chosen] == k).mean() - confidence[chosen].mean())
                worst, total = max(worst, gap), total + chosen.mean() * gap
    return worst, total / n_classes
