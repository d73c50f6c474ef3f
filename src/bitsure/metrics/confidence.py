"""Numbers of each question: how sure the model is, of what, and whether it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc

from bitsure.base.errors import UserError
from bitsure.records.record import Records, flat_column, to_table


@dataclass(frozen=True)
class Questions:
    """n questions, which may have different numbers of choices K. p = softmax of a question's scores, G its right choices.

    scores: (m,) the choices' log-probabilities (nats), divided by their lengths if so asked, one question after the other;
    gold: (m,) of bool; starts: (n + 1,) where each question's choices begin. All else has shape (n,), one value a question.
    """

    scores: np.ndarray
    gold: np.ndarray
    starts: np.ndarray
    fixed_choices: tuple[str, ...] | None = None  # where all questions have the same choices in the same order

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def n_choices(self) -> np.ndarray:
        return np.diff(self.starts)

    @cached_property
    def log_p(self) -> np.ndarray:
        """(m,) ln p."""
        return self.scores - self.spread(self._log_sum(self.scores))

    @cached_property
    def p(self) -> np.ndarray:
        """(m,) the choices' probabilities."""
        return np.exp(self.log_p)

    @cached_property
    def confidence(self) -> np.ndarray:
        """max p, in [1/K, 1]."""
        return np.maximum.reduceat(self.p, self.starts[:-1])

    @cached_property
    def prediction(self) -> np.ndarray:
        """argmax p, the first of equals."""
        top = np.flatnonzero(self.scores == self.spread(np.maximum.reduceat(self.scores, self.starts[:-1])))
        return top[np.searchsorted(top, self.starts[:-1])] - self.starts[:-1]

    @cached_property
    def correct(self) -> np.ndarray:
        """1.0 if the prediction is in G, else 0.0."""
        return self.gold[self.starts[:-1] + self.prediction].astype(float)

    @cached_property
    def true_label_prob(self) -> np.ndarray:
        """p_G = Σ_{g∈G} p_g, in [0, 1]."""
        return np.minimum(np.add.reduceat(self.p * self.gold, self.starts[:-1]), 1.0)

    @cached_property
    def entropy(self) -> np.ndarray:
        """−Σ p ln p in nats, in [0, ln K]; 0·ln 0 = 0."""
        return -np.add.reduceat(np.where(self.p > 0, self.p * self.log_p, 0.0), self.starts[:-1])

    @cached_property
    def margin(self) -> np.ndarray:
        """The largest p less the second largest, in [0, 1]."""
        rest = self.p.copy()
        rest[self.starts[:-1] + self.prediction] = -1.0
        return self.confidence - np.maximum.reduceat(rest, self.starts[:-1])

    @cached_property
    def nll(self) -> np.ndarray:
        """−ln p_G in nats, in [0, ∞); finite also where p_G is too small for a float."""
        return np.maximum(-self._log_sum(np.where(self.gold, self.log_p, -np.inf)), 0.0)

    @cached_property
    def log_odds(self) -> np.ndarray:
        """ln p_G − ln (1 − p_G), in nats."""
        return -self.nll - self._log_sum(np.where(self.gold, -np.inf, self.log_p))

    @cached_property
    def guessed(self) -> np.ndarray:
        """How often one is right who does not read the question, in [0, 1]: |G| / K; or, where all questions have the same
        choices, by always giving the one that is right most often, if that is better.
        """
        by_chance = np.add.reduceat(self.gold.astype(float), self.starts[:-1]) / self.n_choices
        if self.fixed_choices is None:
            return by_chance
        right = self.gold.reshape(len(self), -1).astype(float)
        always = right[:, right.mean(0).argmax()]
        return always if always.mean() > by_chance.mean() else by_chance

    @cached_property
    def several_gold(self) -> bool:
        """Whether any question has more than one right choice."""
        return bool((np.add.reduceat(self.gold.astype(int), self.starts[:-1]) > 1).any())

    @cached_property
    def brier_score(self) -> np.ndarray:
        """Σ_k (p_k − 1[k = g])² in [0, 2] for one right choice (Brier 1950); (1 − p_G)² in [0, 1] where `several_gold`."""
        if self.several_gold:
            return (1 - self.true_label_prob) ** 2
        return np.add.reduceat((self.p - self.gold) ** 2, self.starts[:-1])

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(n,) → (m,): each question's value for each of its choices."""
        return np.repeat(values, self.n_choices)

    def at_temperature(self, inverse: np.ndarray) -> Questions:
        """The same questions with scores times 1/T, a value a question."""
        return Questions(self.scores * self.spread(inverse), self.gold, self.starts, self.fixed_choices)

    def _log_sum(self, values: np.ndarray) -> np.ndarray:
        """ln Σ exp over each question's choices: (m,) → (n,)."""
        largest = np.maximum.reduceat(values, self.starts[:-1])
        safe = np.where(np.isfinite(largest), largest, 0.0)
        with np.errstate(divide="ignore"):
            return safe + np.log(np.add.reduceat(np.exp(values - self.spread(safe)), self.starts[:-1]))


def questions(records: Records, normalization: str = "none") -> Questions:
    """The questions of some records (at least one).

    normalization: what a choice's log-probability is divided by: none (the study), its tokens, the characters (the harness's
    acc_norm) or UTF-8 bytes (acc_bytes) of its text. Raises UserError if the records do not say how many tokens there are, and
    for what has no choices: a confidence of 1 in the only one would be no confidence.
    """
    found = to_table(records)
    scores, starts = flat_column(found, "choice_logprobs")
    if (np.diff(starts) < 2).any():
        task = found["task"][int(np.argmax(np.diff(starts) < 2))].as_py()
        raise UserError(f"task {task} has no choices to take a confidence from: leave it out here.")
    if normalization != "none":
        scores = scores / _lengths(found, normalization)
    gold, first = flat_column(found, "gold")
    mask = np.zeros(len(scores), dtype=bool)
    mask[np.repeat(starts[:-1], np.diff(first)) + gold] = True
    return Questions(scores, mask, starts.astype(np.int64), _fixed_choices(found))


def choice_probabilities(choice_logprobs: Sequence[float]) -> np.ndarray:
    """Softmax over one question's choices of their log-probabilities (nats)."""
    z = np.asarray(choice_logprobs, dtype=float)
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def _lengths(records, normalization: str) -> np.ndarray:
    if normalization == "token":
        if records["choice_tokens"].null_count:
            raise UserError("normalization=token: these records do not say how many tokens a choice has. Take char or byte.")
        lengths = flat_column(records, "choice_tokens")[0]
    else:
        text = records["choices"].combine_chunks().flatten()
        lengths = (pc.utf8_length(text) if normalization == "char" else pc.binary_length(text)).to_numpy()
    return np.maximum(lengths, 1)


def _fixed_choices(records) -> tuple[str, ...] | None:
    first = tuple(records["choices"][0].as_py())
    width = len(first)
    if not pc.all(pc.equal(pc.list_value_length(records["choices"]), width)).as_py():
        return None
    text = records["choices"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return first if all((text[:, k] == choice).all() for k, choice in enumerate(first)) else None
