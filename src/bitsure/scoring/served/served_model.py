"""A model of a server: the requests for its log-probabilities, each answer checked against what was sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitsure.base.errors import UserError
from bitsure.scoring.served.completion import Choice, Completion, Dialect, OtherShape, ScoredPrompt, parse
from bitsure.scoring.served.completion_service import CompletionService

LOWEST = -9999.0  # what vLLM writes for a log-probability of −∞, which JSON does not have


@dataclass(frozen=True)
class ServedModel:
    """A model of a server."""

    client: CompletionService
    name: str
    """What the server calls it."""
    dialect: Dialect
    """How its server gives a prompt's log-probabilities."""

    def score(self, prompts: Sequence[Sequence[int]]) -> list[ScoredPrompt]:
        """Return what the server says of the tokens of some prompts, given as token ids.

        Raises:
            UserError: If the server does not answer, or answers about other tokens than were sent.
        """
        completion = self.complete(prompts, self.dialect.settings)
        self._check_read(prompts, completion)
        try:
            pairs = zip(completion.choices, prompts, strict=True)
            return [self.dialect.read(choice, prompt) for choice, prompt in pairs]
        except OtherShape as error:
            raise self._other_shape(error) from error

    def write(self, prompts: Sequence[Sequence[int]]) -> list[Choice]:
        """Return the most likely token after each of some prompts, with its log-probability, and no more of the prompts."""
        return self.complete(prompts, self.dialect.settings_of_written).choices

    def complete(self, prompts: Sequence[Sequence[int]], settings: Mapping[str, Any]) -> Completion:
        """Return the answer to a request that lets the server write one token after each of some prompts.

        Args:
            prompts: Token ids.
            settings: What else is asked for.

        Raises:
            UserError: If the server does not answer as the protocol says, or is another model.
        """
        body = {"model": self.name, "prompt": [list(prompt) for prompt in prompts], "max_tokens": 1, "temperature": 0}
        content = self.client.post("/completions", body | dict(settings))
        try:
            completion = parse(content, len(prompts))
        except OtherShape as error:
            raise self._other_shape(error) from error
        if completion.model not in (None, self.name):
            raise self.client.refusal(
                f"the model {self.name} was asked, and {self.client.quoted(completion.model or '')} answers"
            )
        return completion

    def _check_read(self, prompts: Sequence[Sequence[int]], completion: Completion) -> None:
        """Raise UserError if the server read other numbers of tokens than were sent."""
        counts = [self.dialect.count(choice) for choice in completion.choices]
        if any(count is None for count in counts):
            raise self.client.refusal(NO_PROMPT_LOGPROBS)
        for count, prompt in zip(counts, prompts, strict=True):
            check_count(self.client, len(prompt), count or 0)
        if completion.usage and completion.usage.prompt_tokens:
            sent = sum(map(len, prompts))
            check_count(self.client, sent, completion.usage.prompt_tokens, len(prompts))

    def _other_shape(self, error: OtherShape) -> UserError:
        return self.client.refusal(f"the server answers in another shape than OpenAI's completions protocol: {error}")


NO_PROMPT_LOGPROBS = (
    "the server returns no log-probabilities of the prompt: it ignores prompt_logprobs and echo, as llama.cpp's server does. "
    "vLLM's server returns them"
)


def check_count(client: CompletionService, sent: int, read: int, prompts: int = 1) -> None:
    """Raise UserError if a server read another number of tokens than were sent, in so many prompts."""
    if read == sent:
        return
    if read == sent + prompts:
        reason = "it puts a token of its own, such as BOS, before a prompt"
    elif read == sent - prompts:
        reason = "it leaves out a token, such as the BOS that the prompt begins with"
    else:
        reason = "it cuts the prompt, or has another tokenizer"
    raise client.refusal(f"the server reads {read} tokens where {sent} were sent: {reason}")


def finite(logprobs: Sequence[float | None]) -> list[float] | None:
    """Return log-probabilities of which every one is known; None if one is missing, or stands for −∞."""
    known = [value for value in logprobs if value is not None and math.isfinite(value) and value > LOWEST]
    return known if len(known) == len(logprobs) else None
