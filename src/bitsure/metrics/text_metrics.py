"""Metrics of what is scored without choices: a continuation (LAMBADA's last word) or a whole text (WikiText's articles)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from bitsure.config.metric import MetricSettings
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.metrics.statistic import IntervalKind, SumStatistic, mean, proportion
from bitsure.metrics.written_answers import answer_set
from bitsure.records.answer_units import is_written
from bitsure.records.record import flat_column, has_choices


@dataclass(frozen=True)
class TextSet:
    """n continuations or texts as one model scored them; arrays have shape (n,).

    Only the likeliest token at each place is known, so there is no confidence.

    Attributes:
        logprob: Log-probability of the whole, nats.
        tokens: Number of tokens; None where the source does not count them.
        correct: 1.0 where every token is the likeliest, else 0.0.
        words: Number of words; None for continuations, and for texts that are cut into windows.
        bytes: Number of UTF-8 bytes; None for continuations.
    """

    logprob: FloatArray
    tokens: IntArray | None
    correct: FloatArray
    words: IntArray | None
    bytes: IntArray | None

    def __len__(self) -> int:
        return len(self.logprob)

    @property
    def nll(self) -> FloatArray:
        """The negative log-likelihood of the whole, nats."""
        return -self.logprob

    @cached_property
    def true_label_prob(self) -> FloatArray:
        """The probability of exactly this continuation among all that could follow, in [0, 1]."""
        return np.exp(self.logprob)


def text_set(records: pa.Table) -> TextSet:
    """Return the texts or continuations of one task's records (at least one)."""
    tokens = None if records["choice_tokens"].null_count else flat_column(records, "choice_tokens")[0]
    words, n_bytes = (None if records[name].null_count else records[name].to_numpy() for name in ("words", "bytes"))
    greedy = flat_column(records, "choice_greedy")[0].astype(float)
    return TextSet(flat_column(records, "choice_logprobs")[0], tokens, greedy, words, n_bytes)


def answers(records: pa.Table, settings: MetricSettings) -> QuestionSet | TextSet:
    """Return one task's questions, written answers or texts: in any case they have `correct`, `true_label_prob` and `nll`."""
    is_confident = has_choices(records) or is_written(records)
    return confident_answers(records, settings) if is_confident else text_set(records)


def confident_answers(records: pa.Table, settings: MetricSettings) -> QuestionSet:
    """Return one task's questions with choices, or written answers: they have a confidence.

    Raises:
        UserError: As `question_set` and `answer_set`.
    """
    return answer_set(records, settings) if is_written(records) else question_set(records, settings.normalization)


def text_metrics(texts: TextSet) -> dict[str, SumStatistic[TextSet]]:
    """Return the metrics that exist for some texts.

    Continuations have accuracy (by greedy decoding), the probability of the right one, NLL and perplexity of each as a whole.
    Texts have NLL and perplexity of a token where tokens are counted, perplexities of a word and a byte where words are, and
    bits per byte: sums over sums, so that long texts count for more, as in the harness.
    """
    if texts.bytes is None:
        return {
            "accuracy": proportion(lambda t: t.correct),
            "true_label_prob": mean(lambda t: t.true_label_prob, least=0.0, most=1.0),
            "nll": mean(lambda t: t.nll, least=0.0),
            "perplexity": _nll_per(lambda t: np.ones(len(t)), np.exp),
        }
    metrics = {}
    if texts.tokens is not None:
        metrics["nll"] = _nll_per(lambda t: t.tokens)
        metrics["perplexity"] = _nll_per(lambda t: t.tokens, np.exp)
    if texts.words is not None:
        metrics["word_perplexity"] = _nll_per(lambda t: t.words, np.exp)
        metrics["byte_perplexity"] = _nll_per(lambda t: t.bytes, np.exp)
    metrics["bits_per_byte"] = _nll_per(lambda t: t.bytes, lambda nll: nll / math.log(2))
    return metrics


def nll_below_guessing(vocabulary: int) -> SumStatistic[TextSet]:
    """Return the NLL of a token if all tokens were equally likely, less a model's; of texts whose tokens are counted.

    Args:
        vocabulary: How many tokens the model gives probabilities to, above 0.
    """
    uniform = math.log(vocabulary)
    return replace(_nll_per(lambda t: t.tokens, lambda nll: uniform - nll), least=-math.inf, most=uniform)


def _nll_per(
    unit: Callable[[TextSet], FloatArray | IntArray | None], function: Callable[[FloatArray], FloatArray] = lambda nll: nll
) -> SumStatistic[TextSet]:
    """Return a function of Σ nll / Σ units as a statistic."""

    def features(texts: TextSet) -> FloatArray:
        units = unit(texts)
        assert units is not None  # there is no such metric where they are not counted
        return np.stack([texts.nll, units], axis=1)

    kind: IntervalKind = "log_mean" if function is np.exp else "mean"
    return SumStatistic(
        features, lambda sums: function(sums[..., 0] / sums[..., 1]), kind, least=float(function(np.zeros(1))[0])
    )
