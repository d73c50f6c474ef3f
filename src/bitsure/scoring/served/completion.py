"""Answers of OpenAI's completions protocol, and the two ways in which servers give a prompt's log-probabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError


class EchoedLogprobs(BaseModel):
    """Log-probabilities as OpenAI's protocol has them: of the written tokens, with echo of the prompt's before them."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float | None] | None] | None = None


class RankedToken(BaseModel):
    """A token of a prompt as vLLM describes it."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class Choice(BaseModel):
    """The answer to one prompt."""

    index: int = 0
    text: str = ""
    logprobs: EchoedLogprobs | None = None
    prompt_logprobs: list[dict[int, RankedToken] | None] | None = None
    token_ids: list[int] | None = None


class Usage(BaseModel):
    """How many tokens a server has read."""

    prompt_tokens: int = 0


class Completion(BaseModel):
    """The answer to a request."""

    choices: list[Choice]
    model: str | None = None
    usage: Usage | None = None


class OtherShape(ValueError):
    """An answer is not as the protocol says, or not about what was asked; the text says how."""


@dataclass(frozen=True)
class ScoredPrompt:
    """What a server says of each token of a prompt; of the first one nothing is known."""

    logprobs: list[float | None]
    """Nats; None where the server gives none."""
    greedy: list[bool]
    """Whether the token is the most likely one."""
    words: list[str | None]
    """What the server calls the token; None where it does not say."""
    top_ids: list[int | None]
    """The most likely token; None where its id is not said."""
    top_logprobs: list[float | None]
    """The most likely token's log-probability, nats."""


class Dialect(ABC):
    """A way to ask for the log-probabilities of a prompt's tokens."""

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]]
    """What a request says besides model, prompts and `max_tokens`."""
    settings_of_written: ClassVar[Mapping[str, Any]]
    """The same of one for the written token's log-probability alone."""

    @abstractmethod
    def count(self, choice: Choice) -> int | None:
        """Return of how many tokens of the prompt an answer speaks; None where it has no log-probabilities of the prompt."""

    @abstractmethod
    def read(self, choice: Choice, prompt: Sequence[int]) -> ScoredPrompt:
        """Return what an answer says of a prompt's tokens, of which it has as many as `count` says.

        Raises:
            OtherShape: If it does not say which tokens are the most likely ones.
        """


class PromptLogprobs(Dialect):
    """vLLM's: by token ids, with ranks."""

    name = "prompt_logprobs"
    settings: ClassVar = {"prompt_logprobs": 1}
    settings_of_written: ClassVar = {"logprobs": 1, "return_token_ids": True}

    def count(self, choice: Choice) -> int | None:
        """Return the number of entries."""
        return None if choice.prompt_logprobs is None else len(choice.prompt_logprobs)

    def read(self, choice: Choice, prompt: Sequence[int]) -> ScoredPrompt:
        """Return what stands under each token's own id; nothing stands there if the server read another one.

        Raises:
            OtherShape: If a token has no rank: whether it is greedy is then not known.
        """
        entries = [entry or {} for entry in choice.prompt_logprobs or []]
        own = [entry.get(token) for token, entry in zip(prompt, entries, strict=True)]
        if any(token and token.rank is None for token in own):
            raise OtherShape("a token of a prompt has no rank: whether it is the most likely one is not known")
        best = [max(entry, key=lambda token: entry[token].logprob, default=None) for entry in entries]
        return ScoredPrompt(
            logprobs=[token.logprob if token else None for token in own],
            greedy=[bool(token and token.rank == 1) for token in own],
            words=[token.decoded_token if token else None for token in own],
            top_ids=best,
            top_logprobs=[None if token is None else entry[token].logprob for token, entry in zip(best, entries, strict=True)],
        )


class Echo(Dialect):
    """OpenAI's own: the prompt is repeated before the one token that is written."""

    name = "echo"
    settings: ClassVar = {"echo": True, "logprobs": 1}
    settings_of_written: ClassVar = {"logprobs": 1}

    def count(self, choice: Choice) -> int | None:
        """Return the number of tokens without the written one; None if that is the only one."""
        n = len(choice.logprobs.token_logprobs) if choice.logprobs else 0
        return None if n <= 1 else n - 1

    def read(self, choice: Choice, prompt: Sequence[int]) -> ScoredPrompt:
        """Return the log-probabilities by their places.

        Raises:
            OtherShape: If they have not as many tokens, or no most likely ones: which token is greedy is then not known.
        """
        echoed, n = choice.logprobs or EchoedLogprobs(), len(prompt)
        if echoed.top_logprobs is None or len(echoed.top_logprobs) < n or len(echoed.tokens) < n:
            raise OtherShape("the log-probabilities have no tokens (tokens) or no most likely ones (top_logprobs) beside them")
        tops = [[value for value in (top or {}).values() if value is not None] for top in echoed.top_logprobs[:n]]
        logprobs = echoed.token_logprobs[:n]
        best = [max(top, default=None) for top in tops]
        if any(own is not None and top is None for own, top in zip(logprobs[1:], best[1:], strict=True)):
            raise OtherShape("a token of a prompt has no most likely one (top_logprobs) beside it")
        greedy = [own is not None and top is not None and own >= top for own, top in zip(logprobs, best, strict=True)]
        return ScoredPrompt(logprobs, greedy, list(echoed.tokens[:n]), [None] * n, best)


DIALECTS: tuple[Dialect, ...] = (PromptLogprobs(), Echo())  # in the order in which they are tried


def parse(content: Mapping[str, Any], prompts: int) -> Completion:
    """Return a checked answer to a number of prompts, its choices in their order.

    Raises:
        OtherShape: If it is no answer to them.
    """
    try:
        completion = Completion.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise OtherShape(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    completion.choices.sort(key=lambda choice: choice.index)
    if [choice.index for choice in completion.choices] != list(range(prompts)):
        raise OtherShape(f"{len(completion.choices)} choices, where {prompts} prompts were sent")
    return completion
