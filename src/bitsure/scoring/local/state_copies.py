"""Rows through a model whose masks are its own: what inputs share is read once, and its state is copied for each of them.

The state is what a model returns to read on from: keys and values, or the recurrent state of Mamba, RWKV and linear attention.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bitsure.scoring.device_copies import send
from bitsure.scoring.local import head, patches
from bitsure.scoring.local.forward import parts_of_logits
from bitsure.scoring.local.logits_from_states import input_device, required_head
from bitsure.scoring.local.padding import state_restored
from bitsure.scoring.local.rows import TreeRow, common_length
from bitsure.scoring.requests import Request, Requests, Scored, input_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST_SHARED = 16  # tokens at the beginning of inputs that are worth a pass of their own
MOST_CACHED = 8192  # tokens whose states are in memory for the inputs of one pass


@dataclass
class _Input:
    """The input of a request, and the log-probabilities of its continuation as they come."""

    number: int
    request: Request
    logprobs: list[float] = field(default_factory=list)
    greedy: bool = True

    def __post_init__(self) -> None:
        self.tokens = input_tokens(self.request)
        self.first = len(self.request[0]) - 1
        """The token that predicts the first one of the continuation."""

    def predicting(self, start: int, end: int) -> range:
        """Return which of the tokens from `start` to `end` predict a token of the continuation."""
        return range(max(start, self.first), min(end, len(self.tokens)))

    def predicted(self, places: range) -> Request:
        """Return the request of only those tokens of the continuation that some tokens of the input predict."""
        return self.request[0], self.request[1][places.start - self.first : places.stop - self.first]


@torch.inference_mode()
def score_copies(
    model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests, by_token: bool = False
) -> dict[int, Scored]:
    """Score the requests of rows, one row after the other.

    Args:
        model: A model for which `why_no_copies` returns None.
        batch: The rows; of each only the requests are used.
        requests: Requests by number, at least those of the rows.
        by_token: Whether the model reads on from a state one token at a time: several would forget the state of Mamba.

    Returns:
        Request → the log-probabilities of its continuation.
    """
    scored: dict[int, Scored] = {}
    for row in batch:
        inputs = [_Input(i, requests[i]) for i in row.scored]
        with state_restored(model):
            _StateReader(model, by_token).read(sorted(inputs, key=lambda reader: reader.tokens), 0, {})
        scored |= {reader.number: Scored(reader.logprobs, reader.greedy) for reader in inputs}
    return scored


def score_copies_by_token(model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests) -> dict[int, Scored]:
    """Score the requests of rows as `score_copies`; the model reads on from a state one token at a time."""
    return score_copies(model, batch, requests, by_token=True)


@dataclass(frozen=True)
class _StateReader:
    """A model that reads inputs on from its states."""

    model: PreTrainedModel
    by_token: bool

    def read(self, inputs: Sequence[_Input], start: int, state: dict[str, Any]) -> None:
        """Read the rest of inputs, in sorted order, that begin with the same `start` tokens, after which there is a state."""
        alone: list[_Input] = []
        for group, end in _groups(inputs, start):
            if len(group) == 1:
                alone += group
                continue
            after = self._rows([group[0].tokens[start:end]], [(0, reader) for reader in group], start, _copied(state, 1))
            self.read([reader for reader in group if len(reader.tokens) > end], end, after)
        alone.sort(key=lambda reader: len(reader.tokens))
        while alone:
            rows = max(1, MOST_CACHED // len(alone[-1].tokens)) if _can_repeat(state) else 1
            batch, alone = alone[-rows:], alone[:-rows]
            self._rows([reader.tokens[start:] for reader in batch], list(enumerate(batch)), start, _copied(state, len(batch)))

    def _rows(
        self, rows: Sequence[list[int]], readers: Sequence[tuple[int, _Input]], start: int, state: dict[str, Any]
    ) -> dict[str, Any]:
        """Read tokens after a state, which may change, and keep the log-probabilities of what they predict.

        Args:
            rows: The tokens, from `start` on, of rows that are padded at their ends.
            readers: The inputs that want log-probabilities, each with the row that it shares or has.
            start: How many tokens were read before.
            state: The model's state after these, of as many rows; empty at the beginning.

        Returns:
            The state after the tokens.
        """
        width = max(map(len, rows))
        ids = send(torch.tensor([row + [0] * (width - len(row)) for row in rows]), input_device(self.model))
        for part in torch.split(ids, 1 if state and self.by_token else width, dim=1):
            state = self._pass(part, readers, start, state)
            start += part.shape[1]
        return state

    def _pass(
        self, ids: torch.Tensor, readers: Sequence[tuple[int, _Input]], start: int, state: dict[str, Any]
    ) -> dict[str, Any]:
        model, width = self.model, ids.shape[1]
        parts = [(row, reader, reader.predicting(start, start + width)) for row, reader in readers]
        parts = [part for part in parts if part[2]]
        chosen = sorted({row * width + place - start for row, _, places in parts for place in places})
        nodes = send(torch.tensor(chosen or [0]), ids.device)
        with patches.states_before_head(required_head(model), nodes) as states:
            out = model(input_ids=ids, use_cache=True, **state)
        if parts:
            place_of = {node: place for place, node in enumerate(chosen)}
            rows_of = {
                reader.number: [place_of[row * width + place - start] for place in places] for row, reader, places in parts
            }
            predicted = {reader.number: reader.predicted(places) for _, reader, places in parts}
            scored = head.score(parts_of_logits(model, states[0]), rows_of, predicted, states[0].device)
            for _, reader, _ in parts:
                reader.logprobs += scored[reader.number].token_logprobs
                reader.greedy &= scored[reader.number].greedy
        taken = inspect.signature(model.forward).parameters
        return {name: value for name, value in out.items() if name in taken}


def _groups(inputs: Sequence[_Input], start: int) -> list[tuple[list[_Input], int]]:
    """Return neighbours that share at least LEAST_SHARED tokens from `start` on, and where what they share ends."""
    groups: list[tuple[list[_Input], int]] = []
    for reader in inputs:
        if groups:
            group, end = groups[-1]
            alike = min(end, common_length(group[-1].tokens, reader.tokens))
            if alike - start >= LEAST_SHARED:
                groups[-1] = [*group, reader], alike
                continue
        groups.append(([reader], len(reader.tokens)))
    return groups


def _copied(state: dict[str, Any], rows: int) -> dict[str, Any]:
    """Return a copy of a state, for as many rows that read on from it."""
    copied = copy.deepcopy(state)
    if rows > 1:
        for cache in copied.values():
            cache.reorder_cache(torch.zeros(rows, dtype=torch.long))
    return copied


def _can_repeat(state: dict[str, Any]) -> bool:
    """Return whether several rows can read on from a state of one; RWKV's and XLNet's are plain tensors."""
    return all(hasattr(cache, "reorder_cache") for cache in state.values())
