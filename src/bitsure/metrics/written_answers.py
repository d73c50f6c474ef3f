"""Metrics of answers that a model wrote: is the answer right as often as the model is sure of it?

Each answer is a question with two outcomes, right and wrong. `metric.answer_confidence` says what the model's confidence c is
that it is right. By default it is the geometric mean of its tokens' probabilities: long answers are not less certain for their
length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.config.metric import ANSWER_CONFIDENCES, MetricSettings
from bitsure.metrics.answer_certainty import Certainty, certainties, certainty_metrics
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.choice_metrics import choice_metrics
from bitsure.metrics.next_token import LEAST_DOUBT
from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.statistic import Statistic, mean
from bitsure.metrics.ties import with_ties
from bitsure.records.record import flat_column

OF_CHOICES = ("entropy", "margin")  # metrics that say nothing of two outcomes


@dataclass(frozen=True, kw_only=True)
class WrittenAnswers(QuestionSet):
    """The n answers of one model, each with the outcomes right (probability c) and wrong (1 − c); arrays have shape (n,).

    Attributes:
        answer: The part of each answer that was judged.
        logprob: The log-probability of the whole answer, nats.
        tokens: Its number of tokens, the one that ended it included.
        certainties: How sure the model is, in every way that is known.
    """

    answer: list[str]
    logprob: FloatArray
    tokens: IntArray
    certainties: Mapping[str, Certainty]

    @cached_property
    @override
    def confidence(self) -> FloatArray:
        """The probability c that the model's own answer is right, in (0, 1]."""
        return self.p[self.starts[:-1]]

    @property
    @override
    def ranked_by(self) -> FloatArray:
        """Logarithms of confidences, since the probabilities of long answers are all near 0."""
        return with_ties(self.log_p[self.starts[:-1]])

    @cached_property
    @override
    def prediction(self) -> IntArray:
        """The outcome "right", 0: whoever writes an answer claims it."""
        return np.zeros(len(self), dtype=np.int64)

    @cached_property
    @override
    def guessed(self) -> FloatArray:
        """0: nobody writes a right answer without reading the question."""
        return np.zeros(len(self))


@dataclass(frozen=True)
class WrittenPairs(QuestionPairs):
    """Two models' answers to the same n questions, written by each."""

    full: WrittenAnswers
    quantized: WrittenAnswers

    @cached_property
    @override
    def flipped(self) -> FloatArray:
        """1 where the part of the answer that is judged is another text."""
        return np.array([a != b for a, b in zip(self.full.answer, self.quantized.answer, strict=True)], dtype=float)


def answer_set(records: pa.Table, settings: MetricSettings) -> WrittenAnswers:
    """Return the answers in some records.

    Args:
        records: One task's rows under `bitsure.records.answer_units.ANSWER_UNITS_SCHEMA`.
        settings: Which confidence the model has in them.

    Returns:
        The answers; those to open questions, of which none is wrong, as if they were right.

    Raises:
        UserError: If nothing was asked that this confidence comes from.
    """
    logprob, tokens = (flat_column(records, name)[0] for name in ("choice_logprobs", "choice_tokens"))
    correct = records["correct"].fill_null(True).combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    known = certainties(records, correct.astype(float))
    if settings.answer_confidence not in known:
        raise UserError(
            f"metric.answer_confidence={settings.answer_confidence}: the answers of task {records['task'][0].as_py()} do not "
            f"have it, but {', '.join(name for name in known if name in ANSWER_CONFIDENCES)}. Take one of these, or write the "
            "answers again with task.samples=10 task.p_true=true."
        )
    log_confidence = known[settings.answer_confidence].log_confidence
    doubt = np.maximum(-np.expm1(log_confidence), LEAST_DOUBT)
    return WrittenAnswers(
        scores=np.stack([log_confidence, np.log(doubt)], axis=1).ravel(),
        gold=np.stack([correct, ~correct], axis=1).ravel(),
        starts=np.arange(0, 2 * len(records) + 1, 2),
        answer=records["filtered"].to_pylist(),
        logprob=logprob,
        tokens=tokens,
        certainties=known,
    )


def answer_metrics(answers: WrittenAnswers, settings: MetricSettings) -> dict[str, Statistic[Any]]:
    """Return every metric of some answers.

    Args:
        answers: The answers whose confidences quantile bins are taken from.
        settings: Number and kind of the bins.
    """
    metrics = {name: metric for name, metric in choice_metrics(answers, settings).items() if name not in OF_CHOICES}
    return (
        metrics
        | {
            "answer_logprob": mean(lambda a: a.logprob, most=0.0),
            "answer_tokens": mean(lambda a: a.tokens.astype(float), least=1.0),
        }
        | certainty_metrics(answers, settings)
    )


def open_answer_metrics(answers: WrittenAnswers, settings: MetricSettings) -> dict[str, Statistic[Any]]:
    """Return the metrics of answers that are neither right nor wrong: how long they are, and how sure the model is of them."""
    names = ("answer_logprob", "answer_tokens", *answers.certainties)
    metrics = answer_metrics(answers, settings)
    return {name: metrics[name] for name in names}
