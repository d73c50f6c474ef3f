"""Batches through a model whose weights are offloaded: each block is brought once for all of them.

The model runs each batch once for every block. In such a pass one block computes: those before it return their input, and the
pass ends behind it. So every batch goes through a block in the shape, and with the arguments, that it has by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from bitsure.base.resources import free_memory
from bitsure.models.offloading import offloaded_parts, weights_in_memory
from bitsure.models.size import width_of
from bitsure.scoring.local.logits_from_states import blocks_of, input_device, required_head
from bitsure.scoring.requests import Requests, Scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bitsure.scoring.local.rows import TreeRow
    from bitsure.scoring.local.trial import RunBatch

Forward: TypeAlias = Callable[..., Any]
RunBatches: TypeAlias = "Callable[[Sequence[list[TreeRow]], Requests], list[Mapping[int, Scored]]]"

BATCHES = 16  # of the longest allowed, that a block is brought for
STATES_SHARE = 0.1  # of free memory, that the hidden states of these batches take


class _BlockDoneError(Exception):
    """The block that a pass is for has run."""


def bring_blocks_once(
    model: PreTrainedModel, run: RunBatch, batches: Sequence[list[TreeRow]], requests: Requests
) -> list[Mapping[int, Scored]]:
    """Score batches as `run` scores each, with each block's weights in memory once for all of them.

    Args:
        model: A model that `run` has run before, so that nothing is tried inside these passes.
        run: Runs the model once for a batch.
        batches: The rows of each batch.
        requests: Requests by number, at least those of the rows.
    """
    blocks = list(blocks_of(model))
    passes = [_OneBlockPasses() for _ in batches]
    scores: list[Mapping[int, Scored]] = []
    for number, block in enumerate(blocks):
        is_last = number == len(blocks) - 1
        with ExitStack() as stack:
            stack.enter_context(_embedding_read(model) if number == 0 else _embedding_skipped(model))
            stack.enter_context(weights_in_memory(block))
            if is_last:
                stack.enter_context(weights_in_memory(required_head(model)))
            for batch, of_batch in zip(batches, passes, strict=True):
                with of_batch.through(blocks[:number], block, is_last), suppress(_BlockDoneError):
                    scores.append(run(model, batch, requests))
    return scores


def most_tokens_at_once(model: PreTrainedModel, most: int) -> int:
    """Return how many tokens are run together, given the most tokens of a batch."""
    free = free_memory(input_device(model))
    return min(BATCHES * most, int(STATES_SHARE * free / (width_of(model) * model.dtype.itemsize)))


class _OneBlockPasses:
    """The passes of one batch, each of which computes one block."""

    def __init__(self) -> None:
        self._states: torch.Tensor | None = None
        """What the last block returned, (rows, n, width); None before the first."""
        self._in_tuple = 0
        """How many values a block returns in a tuple; 0: no tuple."""

    @contextmanager
    def through(self, before: Sequence[nn.Module], block: nn.Module, is_last: bool) -> Iterator[None]:
        """Let a pass inside the `with` block compute one block, and end behind it unless it is the last."""
        with ExitStack() as stack:
            for earlier in before:
                stack.enter_context(_forward_replaced(earlier, lambda forward: self._return_input))
            stack.enter_context(_forward_replaced(block, lambda forward: self._computing(forward, is_last)))
            yield

    def _return_input(self, *args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return (states, *[None] * (self._in_tuple - 1)) if self._in_tuple else states

    def _computing(self, forward: Forward, is_last: bool) -> Forward:
        def compute(*args: Any, **kwargs: Any) -> Any:
            states, self._states = self._states, None  # free as soon as the block no longer needs them
            if states is not None:
                args, kwargs = ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})
            out = forward(*args, **kwargs)
            if is_last:
                return out
            self._in_tuple = len(out) if isinstance(out, tuple | list) else 0
            self._states = out[0] if isinstance(out, tuple | list) else out
            raise _BlockDoneError

        return compute


@contextmanager
def _forward_replaced(module: nn.Module, replaced: Callable[[Forward], Forward]) -> Iterator[None]:
    own = vars(module).get("forward")  # accelerate's, where it has put one
    module.forward = replaced(module.forward)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _embedding_read(model: PreTrainedModel) -> Iterator[None]:
    with weights_in_memory(model.get_input_embeddings()):
        yield


@contextmanager
def _embedding_skipped(model: PreTrainedModel) -> Iterator[None]:
    """Have the embedding of tokens return zeros, which no block reads, if its weights would have to be brought for them."""
    embedding: Any = model.get_input_embeddings()
    if not offloaded_parts(embedding):
        yield
        return

    def zeros(ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*ids.shape, embedding.weight.shape[1], dtype=model.dtype, device=ids.device)

    with _forward_replaced(embedding, lambda forward: zeros):
        yield
