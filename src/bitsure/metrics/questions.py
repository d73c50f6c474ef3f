"""What a model answered to a set of questions: how confident it is, in which choice, and whether that is right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.base.errors import UserError
from bitsure.metrics.arrays import BoolArray, FloatArray, IntArray
from bitsure.metrics.ties import with_ties
from bitsure.records.record import Records, flat_column, to_table


@dataclass(frozen=True)
class QuestionSet:
    """The answers of one model to n questions, which may have different numbers of choices K.

    p is the softmax of a question's scores, G the set of its right choices, m the number of all questions' choices. Properties
    have one value a question, shape (n,), unless they say otherwise.

    Attributes:
        scores: The choices' log-probabilities (nats), divided by their lengths if so configured, one question after the other,
            shape (m,).
        gold: Whether a choice is right, shape (m,).
        starts: Where each question's choices begin, shape (n + 1,); the last is m.
        fixed_choices: The choices' texts where all questions have the same ones in the same order; None elsewhere.
    """

    scores: FloatArray
    gold: BoolArray
    starts: IntArray
    fixed_choices: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def n_choices(self) -> IntArray:
        """K."""
        return np.diff(self.starts)

    @cached_property
    def log_p(self) -> FloatArray:
        """The choices' log-probabilities ln p in nats, shape (m,)."""
        return self.scores - self.spread(self._log_sum(self.scores))

    @cached_property
    def p(self) -> FloatArray:
        """The choices' probabilities, shape (m,)."""
        return np.exp(self.log_p)

    @cached_property
    def confidence(self) -> FloatArray:
        """The largest choice probability max p, in [1/K, 1]."""
        return np.maximum.reduceat(self.p, self.starts[:-1])

    @property
    def ranked_by(self) -> FloatArray:
        """What questions are ranked by: the confidence, equal where it differs by rounding alone."""
        return with_ties(self.confidence)

    @cached_property
    def prediction(self) -> IntArray:
        """The index of the predicted choice argmax p, the first of equals."""
        top = np.flatnonzero(self.scores == self.spread(np.maximum.reduceat(self.scores, self.starts[:-1])))
        return top[np.searchsorted(top, self.starts[:-1])] - self.starts[:-1]

    @cached_property
    def correct(self) -> FloatArray:
        """1.0 if the prediction is in G, else 0.0."""
        return np.asarray(self.gold[self.starts[:-1] + self.prediction], dtype=float)

    @cached_property
    def true_label_prob(self) -> FloatArray:
        """The probability of the right choices p_G = Σ_{g∈G} p_g, in [0, 1]."""
        total: FloatArray = np.add.reduceat(self.p * self.gold, self.starts[:-1])
        return np.minimum(total, 1.0)

    @cached_property
    def entropy(self) -> FloatArray:
        """The entropy −Σ p ln p in nats, in [0, ln K]; 0 · ln 0 = 0."""
        return -np.add.reduceat(np.where(self.p > 0, self.p * self.log_p, 0.0), self.starts[:-1])

    @cached_property
    def margin(self) -> FloatArray:
        """The largest p less the second largest, in [0, 1]."""
        rest = self.p.copy()
        rest[self.starts[:-1] + self.prediction] = -1.0
        second: FloatArray = np.maximum.reduceat(rest, self.starts[:-1])
        return self.confidence - second

    @cached_property
    def nll(self) -> FloatArray:
        """The negative log-likelihood −ln p_G in nats, in [0, ∞); finite also where p_G is too small for a float."""
        return np.maximum(-self._log_sum(np.where(self.gold, self.log_p, -np.inf)), 0.0)

    @cached_property
    def log_odds(self) -> FloatArray:
        """The log-odds of the right choices ln p_G − ln (1 − p_G), in nats."""
        return -self.nll - self._log_sum(np.where(self.gold, -np.inf, self.log_p))

    @cached_property
    def guessed(self) -> FloatArray:
        """The accuracy of guessing without reading the question, in [0, 1].

        That is |G| / K; or, where all questions have the same choices, always giving the one that is right most often, if that
        is better.
        """
        by_chance: FloatArray = np.add.reduceat(self.gold.astype(float), self.starts[:-1]) / self.n_choices
        if self.fixed_choices is None:
            return by_chance
        right = self.gold.reshape(len(self), -1).astype(float)
        always: FloatArray = right[:, right.mean(0).argmax()]
        return always if always.mean() > by_chance.mean() else by_chance

    @cached_property
    def several_gold(self) -> bool:
        """Whether any question has more than one right choice."""
        return bool((np.add.reduceat(self.gold.astype(int), self.starts[:-1]) > 1).any())

    @cached_property
    def brier_score(self) -> FloatArray:
        """Σ_k (p_k − 1[k = g])² in [0, 2] (Brier 1950); (1 − p_G)² in [0, 1] where `several_gold`."""
        if self.several_gold:
            return (1 - self.true_label_prob) ** 2
        score: FloatArray = np.add.reduceat((self.p - self.gold) ** 2, self.starts[:-1])
        return score

    def spread(self, values: FloatArray) -> FloatArray:
        """Return each question's value for each of its choices, shape (n,) → (m,)."""
        return np.repeat(values, self.n_choices)

    def at_temperature(self, inverse: FloatArray) -> Self:
        """Return the same questions with their scores times 1/T.

        Args:
            inverse: 1/T of each question, shape (n,), above 0.
        """
        return replace(self, scores=self.scores * self.spread(inverse))

    def _log_sum(self, values: FloatArray) -> FloatArray:
        """Return ln Σ exp over each question's choices, shape (m,) → (n,)."""
        largest = np.maximum.reduceat(values, self.starts[:-1])
        safe = np.where(np.isfinite(largest), largest, 0.0)
        with np.errstate(divide="ignore"):
            log_sum: FloatArray = safe + np.log(np.add.reduceat(np.exp(values - self.spread(safe)), self.starts[:-1]))
        return log_sum


def question_set(records: Records, normalization: str = "none") -> QuestionSet:
    """Return the answers that are in some records.

    Args:
        records: At least one record; questions with choices.
        normalization: What a choice's log-probability is divided by: `none` (the study), its number of `token`, of `char` (the
            harness's acc_norm) or of UTF-8 `byte` (acc_bytes).

    Raises:
        UserError: If the records do not say how many tokens a choice has and that is asked for, or if a question has fewer than
            two choices: a confidence of 1 in the only one would be no confidence.
    """
    table = to_table(records)
    scores, starts = flat_column(table, "choice_logprobs")
    if (np.diff(starts) < 2).any():
        task = table["task"][int(np.argmax(np.diff(starts) < 2))].as_py()
        raise UserError(f"task {task} has no choices to take a confidence from: leave it out here.")
    if normalization != "none":
        scores = scores / _lengths(table, normalization)
    gold, first = flat_column(table, "gold")
    is_gold = np.zeros(len(scores), dtype=bool)
    is_gold[np.repeat(starts[:-1], np.diff(first)) + gold] = True
    return QuestionSet(scores, is_gold, starts.astype(np.int64), _fixed_choices(table))


def _lengths(records: pa.Table, normalization: str) -> FloatArray:
    if normalization == "token":
        if records["choice_tokens"].null_count:
            raise UserError("normalization=token: these records do not say how many tokens a choice has. Take char or byte.")
        lengths = flat_column(records, "choice_tokens")[0]
    else:
        text = records["choices"].combine_chunks().flatten()
        lengths = (pc.utf8_length(text) if normalization == "char" else pc.binary_length(text)).to_numpy()
    return np.asarray(np.maximum(lengths, 1), dtype=float)


def _fixed_choices(records: pa.Table) -> tuple[str, ...] | None:
    first = tuple(records["choices"][0].as_py())
    width = len(first)
    if not pc.all(pc.equal(pc.list_value_length(records["choices"]), width)).as_py():
        return None
    text = records["choices"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return first if all((text[:, k] == choice).all() for k, choice in enumerate(first)) else None
