"""What an engine is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Request: TypeAlias = tuple[list[int], list[int]]
"""A context and a continuation, token ids; neither is empty."""

Requests: TypeAlias = Mapping[int, Request]
"""Requests by number."""


@dataclass(frozen=True)
class Scored:
    """The log-probabilities of one continuation, given its context."""

    token_logprobs: list[float]
    """For each token of the continuation, nats."""
    greedy: bool
    """Whether each token was the most likely one."""

    @property
    def logprob(self) -> float:
        """The log-probability of the continuation, nats."""
        return sum(self.token_logprobs)


def input_tokens(request: Request) -> list[int]:
    """Return the tokens that the model reads for a request: all but the last one of the continuation."""
    context, continuation = request
    return context + continuation[:-1]
