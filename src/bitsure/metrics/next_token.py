"""Next-token calibration: is the most likely token the true one as often as its probability says?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from bitsure.config.metric import MetricSettings
from bitsure.metrics import calibration
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.choice_metrics import confidence_bins
from bitsure.metrics.metric_names import NEXT_TOKEN, SQUARED_CALIBRATION
from bitsure.metrics.statistic import Statistic, mean, proportion
from bitsure.records.text_units import token_column

LEAST_DOUBT = 2.0**-52  # of a probability that is 1 as a double: the odds stay finite


@dataclass(frozen=True)
class ScoredTokens:
    """n tokens of a text as one model scored them; arrays have shape (n,).

    Attributes:
        logprob: The log-probability of the true token, nats.
        top_token: The token that the model holds most likely.
        confidence: The probability of that, in (0, 1].
        correct: 1.0 where it is the true token, else 0.0.
    """

    logprob: FloatArray
    top_token: IntArray
    confidence: FloatArray
    correct: FloatArray

    def __len__(self) -> int:
        return len(self.logprob)

    @cached_property
    def true_token_prob(self) -> FloatArray:
        """The probability of the true token, in [0, 1]."""
        return np.exp(self.logprob)

    @cached_property
    def log_odds(self) -> FloatArray:
        """The log-odds of the true token ln p − ln (1 − p), in nats."""
        odds: FloatArray = self.logprob - np.log(np.maximum(-np.expm1(self.logprob), LEAST_DOUBT))
        return odds

    @cached_property
    def top_token_nll(self) -> FloatArray:
        """The loss of the event "the most likely token is the true one" under the model's confidence in it, nats."""
        doubt = np.maximum(1 - self.confidence, LEAST_DOUBT)
        loss: FloatArray = -np.where(self.correct > 0, np.log(self.confidence), np.log(doubt))
        return loss


def scored_tokens(records: pa.Table) -> ScoredTokens:
    """Return the tokens of one text's records under `bitsure.records.text_units.UNITS_SCHEMA`."""
    top_tokens, true_tokens = (token_column(records, name) for name in ("top_tokens", "tokens"))
    return ScoredTokens(
        logprob=token_column(records, "token_logprobs").astype(np.float64),
        top_token=top_tokens,
        confidence=token_column(records, "top_probs"),
        correct=np.asarray(top_tokens == true_tokens, dtype=float),
    )


def next_token_metrics(tokens: ScoredTokens, settings: MetricSettings) -> dict[str, Statistic[Any]]:
    """Return what choice tasks have of their predicted choice, of the most likely token.

    Args:
        tokens: The tokens whose confidences quantile bins are taken from.
        settings: Number and kind of the bins.
    """
    bins = confidence_bins(tokens, settings)
    metrics: dict[str, Statistic[Any]] = {
        "accuracy": proportion(lambda t: t.correct),
        "confidence": mean(lambda t: t.confidence, least=0.0, most=1.0),
        "overconfidence": mean(lambda t: t.confidence - t.correct, least=-1.0, most=1.0),
        "nll": mean(lambda t: t.top_token_nll, least=0.0),
        SQUARED_CALIBRATION: calibration.debiased_squared_error(bins),
    }
    return {f"{NEXT_TOKEN}{name}": metric for name, metric in metrics.items()}
