"""One batch of rows through a model: the log-probability of every scored token.

`score_plain` is the reference: whole inputs, the model's own masks and positions, logits everywhere. `score_trees` hands the
model a mask and positions of our own, and applies the output head only where a token is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from bitsure.scoring.device_copies import send
from bitsure.scoring.local import head, patches
from bitsure.scoring.local.head import BatchScores
from bitsure.scoring.local.padding import rotary_types, state_restored
from bitsure.scoring.local.rows import TreeRow
from bitsure.scoring.requests import Requests

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Families whose models take a mask and positions as they are given; tests hold each to the plain path.
SHARING = (
    "opt",
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "gpt2",
    "gpt_neox",
    "phi",
    "gemma",
    "stablelm",
    "falcon",
    "bloom",
)


def input_device(model: PreTrainedModel) -> torch.device:
    """Return where a model takes its inputs: the CPU if accelerate brings its first weights only when they are needed."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


def output_head(model: PreTrainedModel) -> torch.nn.Module | None:
    """Return a model's output head; None if it has none of its own."""
    output: torch.nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return output


def why_not_shared(model: PreTrainedModel, longest: int) -> str | None:
    """Return why a model cannot run trees with inputs of up to `longest` tokens; None if it can."""
    config = model.config
    if config.model_type not in SHARING:
        return f"not tried with the family {config.model_type}"
    if output_head(model) is None:
        return "the model has no output head of its own"
    if getattr(config, "_attn_implementation", "sdpa") not in ("sdpa", "eager"):
        return f"the attention {config._attn_implementation} takes no mask of ours"
    if config.model_type == "falcon" and config.alibi:
        return "Falcon's ALiBi is part of its own mask"
    for kind in rotary_types(config):
        return f"{kind} rotary positions depend on the batch's longest input"
    window = getattr(config, "sliding_window", None)
    if window is not None and longest > window:
        return f"inputs of up to {longest} tokens do not fit the sliding window of {window}"
    return None


@torch.inference_mode()
def score_trees(model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests) -> BatchScores:
    """Score the requests of a batch of trees.

    Each row is one sequence of the batch, shape (rows, n) with n the length of the longest row. The additive mask, shape
    (rows, 1, n, n), is 0 where a token attends to itself or to one before it on its branch, and the lowest number of the
    model's type elsewhere; padding attends to itself, since a softmax over nothing is NaN. A token's position is its
    depth in the tree.

    Args:
        model: A model for which `why_not_shared` returns None.
        batch: The rows.
        requests: Requests by number, at least those of the rows.

    Returns:
        Request → the log-probabilities of its continuation.
    """
    output = output_head(model)
    assert output is not None, "a model without an output head cannot run trees"
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
        states = stack.enter_context(patches.states_before_head(output, at))
        stack.enter_context(patches.last_mlp_at(model, at))
        stack.enter_context(patches.attention_in_parts(model, mask))
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
    parts = head.logits_in_parts(output, states[0], model.config.vocab_size)
    return head.score(parts, rows_of, requests, states[0].device)


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
