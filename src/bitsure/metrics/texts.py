"""Numbers of what is scored without choices: a continuation (LAMBADA's last word) or a whole text (WikiText's articles)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from bitsure.metrics.confidence import Questions, questions
from bitsure.metrics.question_pairs import Outcomes
from bitsure.metrics.statistics import Statistic, Sums, mean
from bitsure.records.record import flat_column, has_choices, is_text


@dataclass(frozen=True)
class Texts:
    """n continuations or texts; arrays have shape (n,). What is likeliest is known token by token only, not how sure it is."""

    logprob: np.ndarray  # nats, of the whole
    tokens: np.ndarray | None  # None where the source has not counted them
    correct: np.ndarray  # 1.0 where every token was the likeliest
    words: np.ndarray | None  # None for continuations
    bytes: np.ndarray | None

    def __len__(self) -> int:
        return len(self.logprob)

    @property
    def nll(self) -> np.ndarray:
        """Nats, of the whole."""
        return -self.logprob

    @cached_property
    def true_label_prob(self) -> np.ndarray:
        """The probability of exactly this continuation among all that could follow, in [0, 1]."""
        return np.exp(self.logprob)


@dataclass(frozen=True)
class TextPairs(Outcomes):
    """The same continuations scored by two models."""

    full: Texts
    quantized: Texts

    def __len__(self) -> int:
        return len(self.full)


def texts(records: pa.Table) -> Texts:
    """The texts of some records of one task (at least one)."""
    tokens = None if records["choice_tokens"].null_count else flat_column(records, "choice_tokens")[0]
    words, n_bytes = (records[name].to_numpy() if is_text(records) else None for name in ("words", "bytes"))
    greedy = flat_column(records, "choice_greedy")[0].astype(float)
    return Texts(flat_column(records, "choice_logprobs")[0], tokens, greedy, words, n_bytes)


def answers(records: pa.Table, normalization: str) -> Questions | Texts:
    """Of one task's questions, with choices or without: either way they have `correct`, `true_label_prob` and `nll`."""
    return questions(records, normalization) if has_choices(records) else texts(records)


def statistics(scored: Texts) -> dict[str, Statistic]:
    """Of continuations: accuracy (by greedy decoding), the right one's probability, NLL and perplexity of each as a whole.

    Of texts: NLL and perplexity of a token, perplexities of a word and a byte, bits per byte: sums over sums, so that long
    texts count for more, as everywhere (and as in the harness).
    """
    if scored.words is None:
        return {
            "accuracy": mean(lambda t: t.correct),
            "true_label_prob": mean(lambda t: t.true_label_prob),
            "nll": mean(lambda t: t.nll),
            "perplexity": _nll_per(lambda t: np.ones(len(t)), np.exp),
        }
    return {
        "nll": _nll_per(lambda t: t.tokens),
        "perplexity": _nll_per(lambda t: t.tokens, np.exp),
        "word_perplexity": _nll_per(lambda t: t.words, np.exp),
        "byte_perplexity": _nll_per(lambda t: t.bytes, np.exp),
        "bits_per_byte": _nll_per(lambda t: t.bytes, lambda nll: nll / math.log(2)),
    }


def paired_statistics() -> dict[str, Sums]:
    """Of two models' continuations: what became wrong or right by greedy decoding, in [0, 1]."""
    return {
        "flip_rate": mean(lambda p: p.lost + p.won),
        "correct_to_wrong": mean(lambda p: p.lost),
        "wrong_to_correct": mean(lambda p: p.won),
    }


def _nll_per(unit: Callable[[Texts], np.ndarray], of: Callable[[np.ndarray], np.ndarray] = lambda nll: nll) -> Sums:
    """A function of Σ nll / Σ units."""
    return Sums(lambda t: np.stack([t.nll, unit(t)], axis=1), lambda sums: of(sums[..., 0] / sums[..., 1]))
