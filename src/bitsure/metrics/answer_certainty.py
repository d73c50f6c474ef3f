"""The ways to say how sure a model is of an answer that it wrote, side by side: which one knows right answers from wrong ones?

Four are probabilities that the answer is right, and can carry its calibration and the verdict. Two are entropies, which rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from bitsure.config.metric import (
    ANSWER_CONFIDENCES,
    P_TRUE,
    SELF_CONSISTENCY,
    SEQUENCE_PROBABILITY,
    TOKEN_PROBABILITY,
    MetricSettings,
)
from bitsure.metrics import calibration
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.choice_metrics import confidence_bins
from bitsure.metrics.metric_names import ECE, SQUARED_CALIBRATION
from bitsure.metrics.ranking import Auroc
from bitsure.metrics.statistic import IntervalKind, Statistic, SumStatistic, mean
from bitsure.metrics.ties import with_ties
from bitsure.records.record import flat_column

TOKEN_ENTROPY, SEMANTIC_ENTROPY = ENTROPIES = ("token_entropy", "semantic_entropy")
CERTAINTIES = (*ANSWER_CONFIDENCES, *ENTROPIES)
LEAST_PROBABILITY = 1e-300


@dataclass(frozen=True)
class Certainty:
    """How sure a model is of its n answers, in one of the ways; arrays have shape (n,).

    Attributes:
        correct: 1.0 where the answer is right, else 0.0.
        log_confidence: ln of the probability that it is right, nats, at most 0; of an entropy, less the entropy, nats.
    """

    correct: FloatArray
    log_confidence: FloatArray

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def confidence(self) -> FloatArray:
        """The probability, in [0, 1]."""
        return np.exp(self.log_confidence)

    @property
    def ranked_by(self) -> FloatArray:
        """What answers are ranked by, equal where it differs by rounding alone."""
        return with_ties(self.log_confidence)


class CertainAnswers(Protocol):
    """n answers with every certainty that is known of them."""

    @property
    def certainties(self) -> Mapping[str, Certainty]:
        """One of CERTAINTIES → its values."""

    def __len__(self) -> int: ...


def certainties(records: pa.Table, correct: FloatArray) -> dict[str, Certainty]:
    """Return the CERTAINTIES of one task's answers, without those that nothing was asked for.

    Of k answers that were drawn, of which s agree, the probability is (s + ½) / (k + 1), so that k answers make none certain.

    Args:
        records: Rows under `bitsure.records.answer_units.ANSWER_UNITS_SCHEMA`.
        correct: 1.0 where the answer is right, else 0.0, shape (n,).

    Reference: Krichevsky & Trofimov 1981 for the added halves.
    """
    logprob, tokens = (flat_column(records, name)[0] for name in ("choice_logprobs", "choice_tokens"))
    drawn = records["answers_drawn"].to_numpy()
    values = {
        TOKEN_PROBABILITY: np.minimum(logprob / tokens, 0.0),
        SEQUENCE_PROBABILITY: np.minimum(logprob, 0.0),
        TOKEN_ENTROPY: -records[TOKEN_ENTROPY].to_numpy(),
    }
    if not records[SELF_CONSISTENCY].null_count:
        values[SELF_CONSISTENCY] = np.log((records[SELF_CONSISTENCY].to_numpy() * drawn + 0.5) / (drawn + 1))
        values[SEMANTIC_ENTROPY] = -records[SEMANTIC_ENTROPY].to_numpy()
    if not records[P_TRUE].null_count:
        values[P_TRUE] = np.log(np.maximum(records[P_TRUE].to_numpy(), LEAST_PROBABILITY))
    return {name: Certainty(correct, values[name]) for name in CERTAINTIES if name in values}


def certainty_metrics(answers: CertainAnswers, settings: MetricSettings) -> dict[str, Statistic[Any]]:
    """Return the mean of each certainty, how well it ranks right answers above wrong ones, and a probability's calibration.

    Args:
        answers: The answers whose confidences quantile bins are taken from.
        settings: Number and kind of the bins.
    """
    metrics: dict[str, Statistic[Any]] = {}
    for name, certainty in answers.certainties.items():
        of_certainty: dict[str, Statistic[Any]] = {f"{name}/auroc": Auroc()}
        if name in ENTROPIES:
            of_certainty[name] = mean(lambda c: -c.log_confidence, least=0.0)
        else:
            bins = confidence_bins(certainty, settings)
            of_certainty[name] = mean(lambda c: c.confidence, least=0.0, most=1.0)
            of_certainty[f"{name}/{ECE}"] = calibration.expected_calibration_error(bins)
            of_certainty[f"{name}/{SQUARED_CALIBRATION}"] = calibration.debiased_squared_error(bins)
        metrics |= {key: OfCertainty(name, metric) for key, metric in of_certainty.items()}
    return metrics


@dataclass(frozen=True)
class OfCertainty(Statistic[CertainAnswers]):
    """A statistic of one certainty of some answers.

    Attributes:
        name: One of CERTAINTIES.
        statistic: The statistic.
    """

    name: str
    statistic: Statistic[Certainty]

    @property
    def interval(self) -> IntervalKind:  # type: ignore[override]  # the same for every instance of the others
        """The interval that fits the statistic."""
        return self.statistic.interval

    @property
    def least(self) -> float:  # type: ignore[override]
        """The smallest value that it can take."""
        return self.statistic.least

    @property
    def most(self) -> float:  # type: ignore[override]
        """The largest value that it can take."""
        return self.statistic.most

    def value_and_influence(self, questions: CertainAnswers) -> tuple[float, FloatArray]:
        """Return the number, and each answer's influence on it."""
        return self.statistic.value_and_influence(questions.certainties[self.name])

    def sampling_error(
        self, questions: CertainAnswers, clusters: IntArray | None, minus: CertainAnswers | None = None
    ) -> tuple[float, float] | None:
        """Return what `Statistic.sampling_error` does."""
        other = None if minus is None else minus.certainties[self.name]
        return self.statistic.sampling_error(questions.certainties[self.name], clusters, other)

    def as_sums(self) -> SumStatistic[CertainAnswers] | None:
        """Return the statistic as a function of sums; None if it is none."""
        sums = self.statistic.as_sums()
        if sums is None:
            return None
        return SumStatistic(
            lambda answers: sums.features(answers.certainties[self.name]), sums.function, sums.interval, sums.least, sums.most
        )
