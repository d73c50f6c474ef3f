"""One batch of answers, written token by token with a cache of keys and values."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.models.load import BUILD_ERRORS
from bitsure.scoring.device_copies import send
from bitsure.scoring.generation.generation_request import Ended, Generation, GenerationRequest
from bitsure.scoring.generation.stop_sequences import StopSequences
from bitsure.scoring.generation.token_choice import TokenChoice
from bitsure.scoring.generation.token_statistics import token_statistics
from bitsure.scoring.local.logits_from_states import input_device
from bitsure.scoring.local.once_a_model import once_a_model
from bitsure.scoring.local.trial import alike, tokens_of_trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

READ_IN_TRIAL = 64  # tokens
KEPT_ROWS = 0.75  # of a batch: when fewer are unfinished, the cache is copied without the finished ones


@dataclass
class UnfinishedAnswer:
    """An answer while it is written; lists have one value a token, as in `Generation`."""

    request: GenerationRequest
    choice: TokenChoice
    stops: StopSequences
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    top_tokens: list[list[int]] = field(default_factory=list)
    top_logprobs: list[list[float]] = field(default_factory=list)
    ended: Ended | None = None

    def check_end(self) -> None:
        """Set why the answer ended, if it did with its last token."""
        if self.tokens[-1] in self.choice.end_tokens:
            self.ended = "end token"
        elif self.stops.end(self.tokens):
            self.ended = "stop"
        elif len(self.tokens) >= self.request.max_new_tokens:
            self.ended = "length"

    def finished(self) -> Generation:
        """Return the answer, which has ended."""
        assert self.ended is not None
        return Generation(self.tokens, self.logprobs, self.entropies, self.top_tokens, self.top_logprobs, self.ended)


class CachedModel:
    """A model that reads tokens after those that it has read.

    Prompts are padded between their common beginning and the rest; a token attends to no padding, and its position counts none.

    Args:
        model: A causal language model, in evaluation mode.
        at_once: How many tokens are read in one pass, padding counted.
    """

    def __init__(self, model: PreTrainedModel, at_once: int) -> None:
        self._model, self._at_once, self._device = model, at_once, input_device(model)
        self._cache = DynamicCache(config=model.config)
        self._mask = torch.ones(1, 0, dtype=torch.long, device=self._device)  # (rows, tokens): 0 where there is padding
        self._takes = inspect.signature(model.forward).parameters.keys()
        self.tokens = 0
        """How many tokens were read, padding counted."""

    def repeated(self, rows: int) -> CachedModel:
        """Return the state of as many rows that have all read what this one has, which stays as it is."""
        other = copy.copy(self)
        other._cache, other._mask = copy.deepcopy(self._cache), self._mask.repeat_interleave(rows, dim=0)
        other._cache.batch_repeat_interleave(rows)
        other.tokens = 0
        return other

    def read(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read more tokens of each row, padded at their beginning.

        Returns:
            The logits after the last token of each row, shape (rows, vocabulary), float32.
        """
        width = max(map(len, rows))
        ids = send(torch.tensor([[0] * (width - len(row)) + list(row) for row in rows]), self._device)
        own = send(torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]), self._device)
        columns = max(1, self._at_once // len(rows))
        for part, of_part in zip(torch.split(ids, columns, dim=1), torch.split(own, columns, dim=1), strict=True):
            logits = self._pass(part, of_part)
        return logits[:, -1].float()

    def read_next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token of each row, shape (rows,), and return as `read` does."""
        return self._pass(tokens[:, None], torch.ones_like(tokens[:, None]))[:, -1].float()

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all other rows; rows: where the model runs, shape (n,)."""
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]

    def _pass(self, ids: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        self._mask = torch.cat([self._mask, own], dim=1)
        arguments: dict[str, Any] = {"attention_mask": self._mask, "use_cache": True, "past_key_values": self._cache}
        if "position_ids" in self._takes:
            arguments["position_ids"] = (self._mask.cumsum(-1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = 1
        self.tokens += ids.numel()
        logits: torch.Tensor = self._model(input_ids=ids, **arguments).logits
        return logits


@once_a_model
@torch.inference_mode()
def why_not_together(model: PreTrainedModel) -> str | None:
    """Return why a model cannot write answers to unlike prompts in one batch, tried on a few tokens; None if it can."""
    beginning, *prompts = (tokens_of_trial(model, n, n) for n in (12, 5, 9))
    state = CachedModel(model, READ_IN_TRIAL)
    try:
        state.read([beginning])
        together = state.repeated(len(prompts)).read(prompts)
        alone = torch.cat([CachedModel(model, READ_IN_TRIAL).read([beginning + prompt]) for prompt in prompts])
    except BUILD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        log.info("%s's own error in a trial", type(model).__name__, exc_info=error)
        return "the model's code fails in a trial"
    if alike(model, alone.log_softmax(-1), together.log_softmax(-1)):
        return None
    return "a trial gives other probabilities to prompts that are padded"


@torch.inference_mode()
def write_answers(state: CachedModel, shared: int, answers: list[UnfinishedAnswer]) -> None:
    """Write a batch of answers to their ends.

    Args:
        state: The model after the `shared` first tokens of the prompts, one row an answer.
        shared: How many tokens of each prompt the model has read.
        answers: The answers, which have no token yet.
    """
    rows = list(answers)
    logits = state.read([answer.request.prompt[shared:] for answer in rows])
    while True:
        chosen = _choose(logits, rows)
        _append(logits, chosen, rows)
        unfinished = [i for i, answer in enumerate(rows) if answer.ended is None]
        if not unfinished:
            return
        if len(unfinished) <= KEPT_ROWS * len(rows):
            at = send(torch.tensor(unfinished), chosen.device)
            state.keep(at)
            rows, chosen = [rows[i] for i in unfinished], chosen[at]
        logits = state.read_next(chosen)


def _choose(logits: torch.Tensor, rows: Sequence[UnfinishedAnswer]) -> torch.Tensor:
    """Return the next token of each answer, shape (rows,)."""
    chosen = logits.argmax(-1)
    others = [i for i, answer in enumerate(rows) if answer.ended is None and not answer.choice.is_plain]
    if others:
        at = send(torch.tensor(others), logits.device)
        tokens = [rows[i].choice.choose(own, rows[i].tokens) for i, own in zip(others, logits[at].cpu(), strict=True)]
        chosen.index_copy_(0, at, send(torch.tensor(tokens), logits.device))
    return chosen


def _append(logits: torch.Tensor, chosen: torch.Tensor, rows: Sequence[UnfinishedAnswer]) -> None:
    """Add the next token to each answer that is unfinished; a finished one goes on unseen until it leaves the batch."""
    statistics = token_statistics(logits, chosen)
    for answer, token, logprob, entropy, top, top_logprobs in zip(rows, *statistics, strict=True):
        if answer.ended is None:
            answer.tokens.append(token)
            answer.logprobs.append(logprob)
            answer.entropies.append(entropy)
            answer.top_tokens.append(top)
            answer.top_logprobs.append(top_logprobs)
            answer.check_end()
