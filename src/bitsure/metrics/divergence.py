"""Where two models part that write answers to the same questions, and whether full precision was unsure there.

Two answers have tokens in common up to the first one that differs. There both models read the same, so that their
probabilities compare. An answer that ends before it differs says nothing of the tokens that would have followed: it is
censored. So rates are per token at risk: each token in common, and the one that differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.bins import Bins
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.ranking import Auroc
from bitsure.metrics.statistic import Statistic, SumStatistic, mean, proportion
from bitsure.metrics.ties import with_ties
from bitsure.records.answer_confidences import NOTHING
from bitsure.records.record import flat_column
from bitsure.records.text_units import token_column

DIVERGENCE = "divergence/"
IDENTICAL, OTHER_WORDING, NOTHING_JUDGED = (f"{DIVERGENCE}{name}" for name in ("identical", "other_wording", "nothing_judged"))
POSITION, MARGIN = f"{DIVERGENCE}position", f"{DIVERGENCE}margin"
FULL_PROBABILITY, QUANTIZED_PROBABILITY = f"{DIVERGENCE}full_probability", f"{DIVERGENCE}quantized_probability"
PER_TOKEN, AUROC = f"{DIVERGENCE}per_token", f"{DIVERGENCE}auroc"
MARGIN_BINS = 10  # of full precision's margin, of equal width
BY_MARGIN = tuple(f"{PER_TOKEN}_{10 * k}_to_{10 * (k + 1)}_percent" for k in range(MARGIN_BINS))


@dataclass(frozen=True)
class TokensAtRisk:
    """n tokens that both models chose after the same beginning; arrays have shape (n,).

    Attributes:
        margin: Full precision's largest probability less its second largest, in [0, 1].
        diverged: 1.0 where the models chose other tokens, else 0.0.
        answer: The answer that each is of, from 0.
    """

    margin: FloatArray
    diverged: FloatArray
    answer: IntArray

    def __len__(self) -> int:
        return len(self.margin)

    @property
    def correct(self) -> FloatArray:
        """1.0 where both chose the same token: what the AUROC of the margin is for."""
        return 1 - self.diverged

    @property
    def ranked_by(self) -> FloatArray:
        """The margin, equal where it differs by rounding alone."""
        return with_ties(self.margin)


@dataclass(frozen=True)
class AnswerDivergence:
    """The answers of two models to the same n questions; arrays have shape (n,), of the tokens by question and place.

    Attributes:
        full: The tokens of full precision's answers.
        quantized: Those of the quantized model's.
        margins: Full precision's margin at each token of its own answers.
        logprobs: The log-probabilities that the two give to their own tokens, nats.
        same_text: 1.0 where the texts are equal.
        same_answer: 1.0 where what the harness judges of them is equal.
        nothing: 1.0 where it finds nothing to judge in either.
    """

    full: list[IntArray]
    quantized: list[IntArray]
    margins: list[FloatArray]
    logprobs: tuple[list[FloatArray], list[FloatArray]]
    same_text: FloatArray
    same_answer: FloatArray
    nothing: FloatArray

    def __len__(self) -> int:
        return len(self.full)

    @cached_property
    def position(self) -> IntArray:
        """How many tokens the answers have in common before the first that differs, or all."""
        return np.array([_common(*pair) for pair in zip(self.full, self.quantized, strict=True)])

    @cached_property
    def diverged(self) -> FloatArray:
        """1.0 where a token differs, else 0.0."""
        shorter = [min(map(len, pair)) for pair in zip(self.full, self.quantized, strict=True)]
        return np.asarray(self.position < np.array(shorter), dtype=float)

    @cached_property
    def margin(self) -> FloatArray:
        """Full precision's margin where the models part; 0 where they do not."""
        return self._there(self.margins)

    @cached_property
    def probabilities(self) -> tuple[FloatArray, FloatArray]:
        """The probability of full precision's token where the models part, and that of the quantized model's; 0 elsewhere."""
        full, quantized = (self._there([np.exp(values) for values in side]) for side in self.logprobs)
        return full, quantized

    @cached_property
    def at_risk(self) -> TokensAtRisk:
        """The tokens that the answers have in common, and those where they part."""
        counts = self.position + self.diverged.astype(int)
        margin = [values[:count] for values, count in zip(self.margins, counts, strict=True)]
        diverged = np.zeros(counts.sum())
        diverged[(np.cumsum(counts) - 1)[self.diverged > 0]] = 1.0
        return TokensAtRisk(np.concatenate(margin), diverged, np.repeat(np.arange(len(self)), counts))

    def _there(self, values: list[FloatArray]) -> FloatArray:
        pairs = zip(values, self.position, self.diverged, strict=True)
        return np.array([row[place] if diverged else 0.0 for row, place, diverged in pairs])


def answer_divergence(before: pa.Table, after: pa.Table) -> AnswerDivergence:
    """Return where the answers in two models' records part.

    Args:
        before: Full precision's rows under `bitsure.records.answer_units.ANSWER_UNITS_SCHEMA`.
        after: The quantized model's, of the same questions in the same order.
    """
    same_answer = _equal(before, after, "filtered")
    return AnswerDivergence(
        full=_lists(before, "answer_tokens"),
        quantized=_lists(after, "answer_tokens"),
        margins=_lists(before, "margins"),
        logprobs=(_logprobs(before), _logprobs(after)),
        same_text=_equal(before, after, "answer"),
        same_answer=same_answer,
        nothing=same_answer * np.array([text == NOTHING for text in after["filtered"].to_pylist()]),
    )


def text_divergence_metrics() -> dict[str, SumStatistic[AnswerDivergence]]:
    """Return which answers are alike, in their texts or in what the harness judges of them; the others have flipped."""
    return {
        IDENTICAL: proportion(lambda d: d.same_text * d.same_answer),
        OTHER_WORDING: proportion(lambda d: (1 - d.same_text) * d.same_answer * (1 - d.nothing)),
        NOTHING_JUDGED: proportion(lambda d: (1 - d.same_text) * d.nothing),
    }


def divergence_metrics() -> dict[str, SumStatistic[AnswerDivergence]]:
    """Return what both models gave to the first token that differs, and where that is."""
    return {
        POSITION: mean(lambda d: d.position.astype(float), among=_diverged, least=0.0),
        FULL_PROBABILITY: mean(lambda d: d.probabilities[0], among=_diverged, least=0.0, most=1.0),
        QUANTIZED_PROBABILITY: mean(lambda d: d.probabilities[1], among=_diverged, least=0.0, most=1.0),
        MARGIN: mean(lambda d: d.margin, among=_diverged, least=0.0, most=1.0),
    }


def token_divergence_metrics(tokens: TokensAtRisk) -> dict[str, Statistic[Any]]:
    """Return the metrics over tokens at risk: how often the models part, also by full precision's margin.

    The AUROC has an interval only where `FEWEST` answers part or more: with fewer it would cover the truth too rarely.

    Args:
        tokens: The tokens; bins of the margin that hold none of them have no metric.
    """
    auroc = Auroc() if tokens.diverged.sum() >= FEWEST else Auroc(interval="never")
    metrics: dict[str, Statistic[Any]] = {PER_TOKEN: proportion(lambda t: t.diverged), AUROC: auroc}
    for k in np.unique(_bin(tokens)).tolist():
        share = mean(lambda t: t.diverged, among=_in_bin(k), least=0.0, most=1.0)
        metrics[BY_MARGIN[k]] = replace(share, interval="proportion")
    return metrics


def _diverged(pairs: AnswerDivergence) -> FloatArray:
    return pairs.diverged


def _bin(tokens: TokensAtRisk) -> IntArray:
    return Bins.uniform(MARGIN_BINS).index(tokens.margin)


def _in_bin(k: int) -> Callable[[Any], FloatArray]:
    return lambda tokens: np.asarray(_bin(tokens) == k, dtype=float)


def _common(first: IntArray, second: IntArray) -> int:
    shorter = min(len(first), len(second))
    differ = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _lists(records: pa.Table, name: str) -> list[Any]:
    values, starts = flat_column(records, name)
    return np.split(values, starts[1:-1])


def _logprobs(records: pa.Table) -> list[FloatArray]:
    return np.split(token_column(records, "token_logprobs"), flat_column(records, "answer_tokens")[1][1:-1])


def _equal(before: pa.Table, after: pa.Table, name: str) -> FloatArray:
    return np.array([a == b for a, b in zip(before[name].to_pylist(), after[name].to_pylist(), strict=True)], dtype=float)
