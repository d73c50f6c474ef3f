"""Numbers of each question: how sure the model is, of what, and whether it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitsure.records import Record


@dataclass(frozen=True)
class Questions:
    """Arrays of shape (n,), one value a question. p = softmax of the choices' log-probabilities, G the right choices.

    confidence:      max p, in [1/K, 1]
    prediction:      argmax p (the first of equals)
    correct:         1.0 if the prediction is in G, else 0.0
    true_label_prob: p_G = Σ_{g∈G} p_g, in [0, 1]
    entropy:         −Σ p ln p in nats, in [0, ln K]; 0·ln 0 = 0
    nll:             −ln p_G in nats, in [0, ∞)
    brier_score:     Σ_k (p_k − 1[k = g])² in [0, 2] for one right choice; (1 − p_G)² in [0, 1] where `several_gold`
    several_gold:    whether any question has more than one right choice
    """

    confidence: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    true_label_prob: np.ndarray
    entropy: np.ndarray
    nll: np.ndarray
    brier_score: np.ndarray
    several_gold: bool

    def __len__(self) -> int:
        return len(self.correct)


def questions(records: Sequence[Record]) -> Questions:
    """The numbers of every question; questions may have different numbers of choices."""
    several_gold = any(len(record.gold) > 1 for record in records)
    columns = np.array([_one(record, several_gold) for record in records], dtype=float).reshape(len(records), 7).T
    confidence, prediction, correct, true_label_prob, entropy, nll, brier_score = columns
    return Questions(confidence, prediction.astype(int), correct, true_label_prob, entropy, nll, brier_score, several_gold)


def choice_probabilities(choice_logprobs: Sequence[float]) -> np.ndarray:
    """Softmax over a question's choices of their summed log-probabilities (nats); the study's, not length-normalised."""
    z = np.asarray(choice_logprobs, dtype=float)
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def _one(record: Record, several_gold: bool) -> tuple[float, ...]:
    p = choice_probabilities(record.choice_logprobs)
    z = np.asarray(record.choice_logprobs, dtype=float)
    log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
    prediction = int(p.argmax())
    p_gold = float(p[record.gold].sum())
    # in log space, so that a right choice of probability 1e-400 still has a finite nll
    nll = -float(np.logaddexp.reduce(log_p[record.gold]))
    brier = (1 - p_gold) ** 2 if several_gold else float(((p - np.eye(len(p))[record.gold[0]]) ** 2).sum())
    entropy = float(-(p * log_p).sum())
    return p[prediction], prediction, float(prediction in record.gold), min(p_gold, 1.0), entropy, max(nll, 0.0), brier
