"""Made-up answers of models, as records or as arrays."""

from __future__ import annotations

import math

import numpy as np

from bitsure.metrics.questions import QuestionSet
from bitsure.records.record import Record
from tests.builders.records import record


def two_choices(p: float, gold: int, doc_id: int, task: str = "t") -> Record:
    """Return a question with two choices, of which the first has probability p."""
    return record([math.log(p), math.log(1 - p)], gold=gold, doc_id=doc_id, task=task)


def paired_runs(
    n: int = 200, shift: float = 0.05, task: str = "t", seed: int = 0
) -> tuple[list[Record], list[Record], np.ndarray]:
    """Return two runs of n questions, and each question's change of the right answer's probability, −shift on average."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.2, 0.9, n)
    q = np.clip(p - shift + rng.normal(0, 0.03, n), 0.01, 0.99)
    full, quantized = ([two_choices(x, 0, i, task) for i, x in enumerate(side)] for side in (p, q))
    return full, quantized, q - p


def binary_questions(confidence, correct) -> QuestionSet:
    """Return questions with two choices: the top one has that confidence (at least ½), and is right or not."""
    confidence, correct = np.array(confidence, float), np.array(correct, bool)
    p = np.stack([confidence, 1 - confidence], axis=1)
    with np.errstate(divide="ignore"):
        scores = np.maximum(np.log(p), -800).ravel()
    return QuestionSet(scores, np.stack([correct, ~correct], 1).ravel(), np.arange(len(p) + 1) * 2)


def drawn_questions(n: int = 3000, power: float = 1.0, seed: int = 0) -> QuestionSet:
    """Return questions whose confidences are uniform, and which are right with probability confidence^power."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 0.999, n)
    return binary_questions(confidence, rng.random(n) < confidence**power)


def statistic_value(statistic, questions, weights=None) -> float:
    """Return a statistic's value, or the one under weights, shape (1, n)."""
    if weights is None:
        return statistic.value(questions)
    return statistic.from_sums((statistic.features(questions).T @ np.array(weights, float).T).T)[0]


def harmed_runs() -> tuple[list[Record], list[Record]]:
    """Return 600 questions of a calibrated model, and of one that is noisy and overconfident."""
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, (600, 4))
    gold = (z + rng.gumbel(0, 1, z.shape)).argmax(1)
    noisy = 1.5 * (z + rng.normal(0, 1.5, z.shape))
    full, harmed = (
        [record((row - np.logaddexp.reduce(row)).tolist(), gold=int(gold[i]), doc_id=i) for i, row in enumerate(side)]
        for side in (z, noisy)
    )
    return full, harmed
