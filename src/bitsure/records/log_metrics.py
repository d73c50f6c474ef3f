"""The metrics that a log of lm-evaluation-harness has of a question, and whether a reading of its target agrees with them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitsure.records.log_lines import Gold, LoggedQuestion

TOLERANCE = 1e-6  # relative, of a log-likelihood or a probability that the log has twice


def metric_value(value: Any) -> float | None:
    """Return a metric's value; None if it is none or is not a number."""
    if not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def _best_per(question: LoggedQuestion, lengths: Sequence[int]) -> int:
    return int(np.argmax([logprob / max(n, 1) for (logprob, _), n in zip(question.scores, lengths, strict=True)]))


def _mutual(question: LoggedQuestion, gold: Gold) -> float | None:
    if not question.unconditional or len(gold) != 1:  # of several right choices the harness's own is always 0
        return metric_value(question.sample.get("acc_mutual_info"))
    pairs = zip(question.scores, question.unconditional, strict=True)
    return float(int(np.argmax([score[0] - alone[0] for score, alone in pairs])) in gold)


_METRICS: dict[str, Callable[[LoggedQuestion, Gold], float | None]] = {
    "acc": lambda question, gold: float(question.best in gold),
    "exact_match": lambda question, gold: float(any(question.scores[i][1] for i in gold)),
    "acc_norm": lambda question, gold: float(_best_per(question, [len(c) for c in question.choices]) in gold),
    "acc_bytes": lambda question, gold: float(_best_per(question, [len(c.encode()) for c in question.choices]) in gold),
    "acc_mutual_info": _mutual,
}


def agrees(question: LoggedQuestion, gold: Gold, metric: str) -> bool:
    """Return whether a metric of the log is what it would be if `gold` were right; true where the log does not have it."""
    theirs = metric_value(question.sample.get(metric))
    if theirs is None or not all(math.isfinite(logprob) for logprob, _ in question.scores):
        return True
    return theirs == _METRICS[metric](question, gold)


def first_contradiction(questions: Sequence[LoggedQuestion], golds: Sequence[Gold], metrics: Sequence[str]) -> int | None:
    """Return the first question of which a metric is not what it would be if `golds` were right; None if there is none."""
    rows = enumerate(zip(questions, golds, strict=True))
    return next((i for i, (question, gold) in rows if not all(agrees(question, gold, metric) for metric in metrics)), None)


def contradicts_acc(question: LoggedQuestion, gold: Gold | None) -> bool:
    """Return whether the log's acc is another than it would be if `gold` were right; false where gold is unknown."""
    return bool(gold) and not agrees(question, gold or [], "acc")


def has_probability(question: LoggedQuestion, gold: Gold) -> bool:
    """Return whether the log's acc is the probability of the right choices, as in TruthfulQA's mc2."""
    theirs = metric_value(question.sample.get("acc"))
    probabilities = np.exp([logprob for logprob, _ in question.scores])  # as the harness computes it
    total = float(probabilities.sum())
    if theirs is None or not total:
        return True
    ours = float(probabilities[gold].sum()) / total
    return abs(theirs - ours) <= TOLERANCE * ours
