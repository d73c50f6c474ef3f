"""One batch of rows through a model: the log-probability of every scored token.

`score_plain` is the reference: whole inputs, the model's own masks and positions, logits everywhere. `score_trees` hands the
model a mask and positions of our own, and applies the output head only where a token is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from bitsure.scoring.local import head, patches
from bitsure.scoring.local.padding import rotary_types, state_restored
from bitsure.scoring.local.rows import TreeRow
from bitsure.scoring.requests import Requests, Scored

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
def score_trees(model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests) -> dict[int, Scored]:
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
    ids, positions = (torch.zeros(len(batch), width, dtype=torch.long) for _ in range(2))
    visible = torch.eye(width, dtype=torch.bool).repeat(len(batch), 1, 1)
    for i, row in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row.tokens)
        positions[i, : len(row)] = torch.tensor(row.positions)
        visible[i, : len(row), : len(row)] = torch.from_numpy(row.visible())
    nodes = sorted({i * width + node for i, row in enumerate(batch) for scored in row.scored.values() for node in scored})
    device, dtype = input_device(model), model.dtype
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)[:, None].to(device)
    ids, positions = ids.to(device), positions.to(device)
    arguments = {"attention_mask": mask, "position_ids": positions}
    at = torch.tensor(nodes, device=device)
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
    return head.score(head.logits_in_parts(output, states[0], model.config.vocab_size), rows_of, requests)


@torch.inference_mode()
def score_plain(model: PreTrainedModel, batch: Sequence[TreeRow], requests: Requests) -> dict[int, Scored]:
    """Score the requests of a batch of rows that are chains, with nothing but the model's own forward pass.

    Args and Returns: as for `score_trees`.
    """
    width = max(map(len, batch))
    ids = torch.tensor([[*row.tokens, *[0] * (width - len(row))] for row in batch], device=input_device(model))
    with state_restored(model):
        logits = model(input_ids=ids, use_cache=False).logits
    scored: dict[int, Scored] = {}
    for row, row_logits in zip(batch, logits, strict=True):
        scored |= head.score([(len(row), head.tiles(row_logits[: len(row)]))], row.scored, requests)
    return scored
