"""What a text generator is asked to write, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Ended: TypeAlias = Literal["stop", "length", "end token"]
"""Why an answer ended: a stop sequence, the longest length that is allowed, or the model's end token."""


@dataclass(frozen=True)
class GenerationRequest:
    """One answer to write."""

    prompt: list[int]
    """Token ids; not empty."""
    max_new_tokens: int
    """The most tokens of the answer, at least 1."""
    stop: list[str]
    """Texts that end the answer."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How a token is chosen, by the names of transformers' GenerationConfig; what is absent is the model's own default."""
    seed: int = 0
    """Of the draws, where tokens are drawn."""

    @property
    def key(self) -> list[Any]:
        """What identifies the request, as JSON."""
        return list(vars(self).values())


@dataclass(frozen=True)
class Generation:
    """One answer; lists have one value for each token, the token that ended it included."""

    tokens: list[int]
    """Token ids."""
    token_logprobs: list[float]
    """The log-probability of each token in the model's own distribution, before any temperature, nats."""
    entropies: list[float]
    """The entropy of each such distribution, nats."""
    top_tokens: list[list[int]]
    """The most likely tokens at each place, the likeliest first."""
    top_logprobs: list[list[float]]
    """Their log-probabilities, nats."""
    ended: Ended
    """Why it ended."""
