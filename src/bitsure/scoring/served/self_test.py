"""The test of a server before the first question: are its log-probabilities those of the tokens that are sent?

No weights are needed. What the server says of a prompt's last token must be what it says of the same token when it writes it;
two equal requests must agree; and no log-probability may be missing, cut off or rounded.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bitsure.base.errors import UserError
from bitsure.scoring.served.completion import DIALECTS, Dialect, ScoredPrompt
from bitsure.scoring.served.completion_service import CompletionService
from bitsure.scoring.served.served_model import NO_PROMPT_LOGPROBS, ServedModel, finite

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = (
    "The harbour was quiet that morning. Two boats had left before dawn, and a third was being loaded with nets, rope and "
    "three barrels of fresh water. Nobody on the quay spoke above a whisper, because the keeper of the lighthouse was asleep."
)
MOST_TOKENS = 64  # of the text
UNLIKELY_TOKENS = 32  # drawn from the vocabulary
REPEATS = 3  # of equal requests, at one time with others
MOST_DECIMALS = 3  # decimals that log-probabilities may not be rounded to: an error of up to half a thousandth of a nat
EQUAL_VALUES = 4  # of unlikely tokens that are no chance


@dataclass(frozen=True)
class SelfTestResult:
    """What a server was found to do."""

    reference: list[float]
    """Log-probabilities of a fixed text and of fixed unlikely tokens, nats: what tells this model from another."""
    nondeterminism: float
    """The largest difference between two answers to the same request, nats."""
    answers: list[list[float]]
    """The reference and the answers to the same request that the nondeterminism was measured with."""
    inconsistency: float | None
    """The largest difference between a token's log-probability in a prompt and as it is written, nats; None where the server
    does not say what it writes so that it can be sent back."""


class SelfTest:
    """Asks a server what tells whether it can be scored with.

    Args:
        client: The server.
        name: What it calls the model.
        tokenizer: The model's tokenizer.
        tolerance: The largest difference between two answers about one token that is accepted, nats.
    """

    def __init__(self, client: CompletionService, name: str, tokenizer: PreTrainedTokenizerBase, tolerance: float) -> None:
        self._client, self._name, self._tokenizer, self._tolerance = client, name, tokenizer, tolerance
        self.text: list[int] = tokenizer(TEXT)["input_ids"][:MOST_TOKENS]
        """Ordinary text, token ids."""
        special = set(tokenizer.all_special_ids)
        ordinary = [token for token in sorted(tokenizer.get_vocab().values()) if token not in special]
        self._unlikely = random.Random(0).choices(ordinary, k=UNLIKELY_TOKENS)

    @cached_property
    def model(self) -> ServedModel:
        """The model, with the way in which its server gives a prompt's log-probabilities. Raises UserError if it gives none."""
        for dialect in DIALECTS:
            if self._gives(dialect):
                return ServedModel(self._client, self._name, dialect)
        raise self._refusal(NO_PROMPT_LOGPROBS)

    def run(self) -> SelfTestResult:
        """Return what the server does. Raises UserError for what makes its log-probabilities useless."""
        text, unlikely = self.model.score([self.text, self._unlikely])
        self._check_first(text)
        self._check_words(text)
        logprobs = self._known(text), self._known(unlikely)
        self._check_unlikely(unlikely, logprobs[1])
        reference = [*logprobs[0], *logprobs[1]]
        answers = [reference, *self._answers_again()]
        return SelfTestResult(reference, self._nondeterminism(answers), answers, self._inconsistency())

    def reference(self) -> list[float]:
        """Return the log-probabilities that tell the model from another, as in `SelfTestResult`."""
        return [value for scored in self.model.score([self.text, self._unlikely]) for value in self._known(scored)]

    def _gives(self, dialect: Dialect) -> bool:
        """Return whether a server gives a prompt's log-probabilities in one way; a refusal of the last way is the user's."""
        model = ServedModel(self._client, self._name, dialect)
        try:
            completion = model.complete([self.text], dialect.settings)
        except UserError:
            if dialect is DIALECTS[-1]:
                raise
            return False  # such as a server that knows no such setting
        return dialect.count(completion.choices[0]) is not None

    def _check_first(self, text: ScoredPrompt) -> None:
        if text.logprobs[0] not in (None, 0.0):
            raise self._refusal(
                "the server gives the first token of a prompt a log-probability, so that something stands before it: it puts a "
                "token of its own, such as BOS, before a prompt, or its log-probabilities are shifted by one"
            )

    def _check_words(self, text: ScoredPrompt) -> None:
        """Raise UserError if the server calls tokens otherwise than the tokenizer does."""
        words = ["" if word is None or word.startswith("token_id:") else word for word in text.words[1:]]
        if not any(words):
            return
        own = [str(self._tokenizer.decode([token])) for token in self.text[1:]]
        differ = [(mine, other) for mine, other in zip(own, words, strict=True) if _letters(mine) != _letters(other)]
        if len(differ) > len(own) // 4:  # servers write some tokens in ways of their own
            raise self._refusal(
                f"the server has another tokenizer: {len(differ)} of {len(own)} tokens are other texts there, such as "
                f"{differ[0][1]!r} where {differ[0][0]!r} was sent"
            )

    def _known(self, scored: ScoredPrompt) -> list[float]:
        """Return the log-probabilities of all tokens but the first. Raises UserError if one is not known."""
        if (known := finite(scored.logprobs[1:])) is None:
            missing = sum(finite([value]) is None for value in scored.logprobs[1:])
            raise self._refusal(
                f"the server gives {missing} of {len(scored.logprobs) - 1} tokens of a prompt no log-probability: it knows the "
                "most likely tokens only (top k), or answers about other tokens than were sent"
            )
        return known

    def _check_unlikely(self, scored: ScoredPrompt, logprobs: Sequence[float]) -> None:
        """Raise UserError if log-probabilities of tokens drawn from the vocabulary are not what such have."""
        value, times = Counter(logprobs).most_common(1)[0]
        if rounding := _rounded_to(logprobs):
            raise self._refusal(f"the server rounds log-probabilities {rounding}")
        if times >= EQUAL_VALUES:
            raise self._refusal(
                f"the server gives {times} of {len(logprobs)} unlikely tokens the same log-probability {value:g}: it cuts them "
                "off there, or knows the most likely tokens only (top k)"
            )
        if all(top is not None and own >= top for own, top in zip(logprobs, scored.top_logprobs[1:], strict=True)):
            raise self._refusal("the server gives the most likely token's log-probability in place of the one that was sent")
        if all(scored.greedy[1:]):
            raise self._refusal("the server says of each of many unlikely tokens that it is the most likely one")

    def _inconsistency(self) -> float | None:
        """Return how far a token's log-probability in a prompt is from its log-probability as it is written.

        Raises:
            UserError: If that is further than the tolerance, and whether it stands beside another token; or if no written
                token is called the most likely one.
        """
        n = len(self.text)
        prefixes = [self.text[:length] for length in sorted({max(2, n * part // 4) for part in (1, 2, 3, 4)})]
        written = [
            (prefix, token, logprob)
            for prefix, choice in zip(prefixes, self.model.write(prefixes), strict=True)
            if choice.logprobs and (logprob := next(iter(choice.logprobs.token_logprobs), None)) is not None
            for token in [choice.token_ids[0] if choice.token_ids else self._id_of(choice.logprobs.tokens[0])]
            if token is not None
        ]
        if not written:
            return None
        again = self.model.score([[*prefix, token] for prefix, token, _ in written])
        expected = [logprob for *_, logprob in written]
        errors = [self._distance(scored, -1, value) for scored, value in zip(again, expected, strict=True)]
        if max(errors) <= self._tolerance:
            if not any(scored.greedy[-1] for scored in again):
                raise self._refusal("the server says of no token that it writes itself that it is the most likely one")
            return max(errors)
        for place, which in ((-2, "the one before"), (-3, "the one two before")):
            distances = [self._distance(scored, place, value) for scored, value in zip(again, expected, strict=True)]
            if max(distances) <= self._tolerance:
                raise self._refusal(f"the server's log-probabilities are shifted: a token's stands at {which}")
        raise self._refusal(
            f"the server gives a token's log-probability in a prompt {max(errors):.3g} nats away from the same token's as it "
            f"writes it; server.tolerance={self._tolerance:g} is accepted. It answers about another token, or computes the two "
            "in ways that differ so much"
        )

    @staticmethod
    def _distance(scored: ScoredPrompt, place: int, expected: float) -> float:
        value = scored.logprobs[place]
        return float("inf") if value is None else abs(value - expected)

    def _id_of(self, word: str) -> int | None:
        """Return the id of a written token; None where its text is no single token's."""
        ids: list[int] = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        return ids[0] if len(ids) == 1 and self._tokenizer.decode(ids) == word else None

    def _answers_again(self) -> list[list[float]]:
        """Return the reference as it is asked for again, at one time with others and then alone."""
        with ThreadPoolExecutor(REPEATS) as pool:
            return [*pool.map(lambda _: self.reference(), range(REPEATS)), self.reference()]

    def _nondeterminism(self, answers: Sequence[Sequence[float]]) -> float:
        """Return the largest difference of equal requests' answers from the first one. Raises UserError if it is too large."""
        largest = max(distance(answers[0], answer) for answer in answers)
        if largest > self._tolerance:
            raise self._refusal(
                f"two equal requests differ by {largest:.3g} nats, and {self._client.tolerance}={self._tolerance:g} is "
                f"accepted. {self._client.agrees_more}"
            )
        return largest

    def _refusal(self, reason: str) -> UserError:
        return self._client.refusal(reason)


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the largest difference between log-probabilities of the same tokens, nats; infinite if there are not as many."""
    if len(first) != len(second):
        return float("inf")
    return max((abs(a - b) for a, b in zip(first, second, strict=True)), default=0.0)


def mean_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the mean difference between log-probabilities of the same tokens, nats; infinite if there are not as many."""
    if len(first) != len(second):
        return float("inf")
    return float(np.abs(np.subtract(first, second)).mean())


def _rounded_to(logprobs: Sequence[float]) -> str | None:
    """Return what all log-probabilities are rounded to; None where they are not."""
    values = np.array(logprobs)
    for decimals in range(MOST_DECIMALS + 1):
        if np.allclose(values, values.round(decimals), rtol=0, atol=1e-9):
            return f"to {decimals} decimals"
    single = values.astype(np.float32)
    if np.array_equal(single.view(np.uint32) & 0xFFFF, np.zeros(len(single))) and np.allclose(single, values, rtol=1e-7):
        return "to bfloat16"
    if np.allclose(values.astype(np.float16), values, rtol=1e-6, atol=0):
        return "to float16"
    return None


def _letters(word: str) -> str:
    """Return a token's text without what marks its spaces."""
    return word.strip().lstrip("Ġ▁").strip()
