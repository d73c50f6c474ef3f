"""One batch of rows through a model: the log-probability of every scored token.

`score_plain` is the reference: whole inputs, the model's own masks and positions, logits everywhere. `score_trees` hands the
model a mask and positions of our own, and applies the output head only where a token is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from bitsure.scoring.device_copies import send
from bitsure.scoring.local import head, patches
from bitsure.scoring.local.head import BatchScores
from bitsure.scoring.local.logits_from_states import input_device, logits_of, required_head
from bitsure.scoring.local.once_a_model import once_a_model
from bitsure.scoring.local.padding import state_restored
from bitsure.scoring.local.rows import TreeRow
from bitsure.scoring.requests import Requests

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def score_trees(
    model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests, attention_part: int | None = None
) -> BatchScores:
    """Score the requests of a batch of trees.

    Each row is one sequence of the batch, shape (rows, n) with n the length of the longest row. The additive mask, shape
    (rows, 1, n, n), is 0 where a token attends to itself or to one before it on its branch, and the lowest number of the
    model's type elsewhere; padding attends to itself, since a softmax over nothing is NaN. A token's position is its
    depth in the tree.

    Args:
        model: A model for which `why_no_trees` returns None.
        batch: The rows.
        requests: Requests by number, at least those of the rows.
        attention_part: Tokens of a row whose attention is computed at once; None: patches.ATTENTION_PART.

    Returns:
        Request → the log-probabilities of its continuation.
    """
    output = required_head(model)
    width = max(map(len, batch))
    device, dtype = input_device(model), model.dtype
    tokens = torch.zeros(3, len(batch), width, dtype=torch.long)  # ids, positions, ends
    tokens[2] = torch.arange(1, width + 1)
    for i, row in enumerate(batch):
        tokens[:, i, : len(row)] = torch.from_numpy(np.stack([row.tokens, row.positions, row.ends()]))
    ids, positions, ends = send(tokens, device)
    mask = _mask(ends, dtype)
    nodes = sorted({i * width + node for i, row in enumerate(batch) for scored in row.scored.values() for node in scored})
    at = send(torch.tensor(nodes), device)
    arguments = {"attention_mask": mask, "position_ids": positions}
    with ExitStack() as stack:
        stack.enter_context(patches.attention_in_parts(model, mask, tokens[2], attention_part))  # first: it may try the model
        states = stack.enter_context(patches.states_before_head(output, at))
        stack.enter_context(patches.last_mlp_at(model, at))
        stack.enter_context(patches.relu_in_place(model))
        if model.config.model_type == "bloom":
            stack.enter_context(patches.bloom_mask(model, mask, positions))
            arguments = {}
        model(input_ids=ids, use_cache=False, **arguments)
    place = {node: k for k, node in enumerate(nodes)}
    rows_of = {
        number: [place[i * width + node] for node in scored]
        for i, row in enumerate(batch)
        for number, scored in row.scored.items()
    }
    return head.score(parts_of_logits(model, states[0]), rows_of, requests, states[0].device)


def parts_of_logits(model: PreTrainedModel, states: torch.Tensor) -> Iterator[head.Part]:
    """Return the logits of the hidden states before a model's head, part by part."""
    vocabulary = model.config.get_text_config().vocab_size
    if ends_with_head(model):
        return head.logits_in_parts(required_head(model), states, vocabulary)
    return ((len(some), head.tiles(logits_of(model, some))) for some in head.split(states, vocabulary))


@once_a_model
@torch.inference_mode()
def ends_with_head(model: PreTrainedModel) -> bool:
    """Return whether a model's logits are what its head gives, neither capped nor scaled, by trying it."""
    outputs: list[torch.Tensor] = []
    handle = required_head(model).register_forward_hook(lambda head, inputs, output: outputs.append(output.clone()))
    try:
        logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=input_device(model)), use_cache=False).logits
    finally:
        handle.remove()
    return len(outputs) == 1 and torch.equal(outputs[0].float(), logits.float())


@torch.inference_mode()
def score_plain(model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests) -> BatchScores:
    """Score the requests of a batch of rows that are chains, with nothing but the model's own forward pass.

    Args and Returns: as for `score_trees`.
    """
    width = max(map(len, batch))
    ids = torch.tensor([[*row.tokens, *[0] * (width - len(row))] for row in batch])
    with state_restored(model):
        logits = model(input_ids=send(ids, input_device(model)), use_cache=False).logits
    # A CPU's tiles are of a row without its padding; on a GPU the fewest operations are the fastest.
    lengths = [width if logits.is_cuda else len(row) for row in batch]
    chunks = [logits.flatten(0, 1)] if logits.is_cuda else [logits[i, :length] for i, length in enumerate(lengths)]
    rows_of: dict[int, list[int]] = {}
    for row, start in zip(batch, accumulate([0, *lengths]), strict=False):
        rows_of |= {number: [start + node for node in scored] for number, scored in row.scored.items()}
    return head.score([(len(chunk), head.tiles(chunk)) for chunk in chunks], rows_of, requests, logits.device)


def _mask(ends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask of trees, (rows, 1, n, n), made where the model runs.

    Args:
        ends: For each token one past the last token that attends to it, shape (rows, n).
        dtype: The model's type.
    """
    rows, n = ends.shape
    at = torch.arange(n, device=ends.device)
    visible = (at <= at[:, None]) & (ends[:, None] > at[:, None])
    # Rows that begin at a multiple of 8 numbers: fused kernels would copy any other mask in every block.
    mask = torch.zeros(rows, 1, n, n + -n % 8, dtype=dtype, device=ends.device)[..., :n]
    return mask.masked_fill_(~visible[:, None], torch.finfo(dtype).min)
