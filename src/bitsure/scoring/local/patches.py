"""What is changed in a model while trees run through it: the masks of some families, and work that no scored token needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PART = 256  # tokens of a row whose attention is computed at once
OF_EXPERTS = ("mixtral",)  # families whose first batch must reach every expert, or a proof would miss some
OWN_ATTENTION = ("bloom", "falcon")  # families that do not take theirs from transformers' registry


@contextmanager
def states_before_the_head(model: torch.nn.Module, nodes: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Catch what the output head is given at those tokens (counted through the flattened batch), and give it one of them."""
    states: list[torch.Tensor] = []

    def catch(head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states.append(inputs[0].flatten(0, 1)[nodes.to(inputs[0].device)])
        return (states[0][None, :1], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(catch)
    try:
        yield states
    finally:
        handle.remove()


@contextmanager
def last_mlp_at(model: torch.nn.Module, nodes: torch.Tensor) -> Iterator[None]:
    """Run the last block's MLP, after which no token sees another, for those tokens alone; it gives the others zeros."""
    # the outermost list; quantize's find_blocks wants ordinary linear layers, which packed kernels are not
    last = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))[-1]
    first, final = (last.fc1, last.fc2) if hasattr(last, "fc1") else (getattr(last, "mlp", None),) * 2
    if first is None or model.config.model_type in OF_EXPERTS:
        yield
        return
    shape: list[torch.Size] = []

    def choose(mlp: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        shape[:] = [inputs[0].shape]
        ahead = (1,) * (inputs[0].ndim - 2)
        return tuple(one.flatten(0, -2)[nodes.to(one.device)].unflatten(0, (*ahead, len(nodes))) for one in inputs)

    def put_back(mlp: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        everywhere = out.new_zeros(shape[0])
        everywhere.view(-1, shape[0][-1])[nodes.to(out.device)] = out.flatten(0, -2)
        return everywhere

    handles = [first.register_forward_pre_hook(choose), final.register_forward_hook(put_back)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attention_in_parts(model: torch.nn.Module, mask: torch.Tensor) -> Iterator[None]:
    """Let tokens attend, a part of each row at a time, only to the keys that some of the part see: in a long row of many
    questions after the same examples, these and a few of the questions. mask: (rows, 1, n, n), 0 where a token sees a key.
    """
    config, n = model.config, mask.shape[-1]
    if n <= PART or mask.is_cuda or config._attn_implementation != "sdpa" or config.model_type in OWN_ATTENTION:
        yield
        return
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    parts = []
    for queries in (slice(first, min(first + PART, n)) for first in range(0, n, PART)):
        keys = (mask[:, 0, queries] == 0).flatten(0, 1).any(0).nonzero().flatten()
        parts.append((queries, keys, mask[:, :, queries, keys]))

    def attend(module, query, key, value, attention_mask, **settings):
        if query.device != mask.device:  # accelerate computes elsewhere
            return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        outs = [
            sdpa_attention_forward(module, query[:, :, queries], key[:, :, keys], value[:, :, keys], seen, **settings)[0]
            for queries, keys, seen in parts
        ]
        return torch.cat(outs, dim=1), None

    ALL_ATTENTION_FUNCTIONS["bitsure"] = attend
    config._attn_implementation = "bitsure"
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
        del ALL_ATTENTION_FUNCTIONS["bitsure"]


@contextmanager
def rectified_in_place(model: torch.nn.Module) -> Iterator[None]:
    """Fresh memory for the output of the widest layer takes longer than the operation."""
    fresh = [part for part in model.modules() if isinstance(part, torch.nn.ReLU) and not part.inplace]
    for part in fresh:
        part.inplace = True
    try:
        yield
    finally:
        for part in fresh:
            part.inplace = False


@contextmanager
def bloom_sees(model: torch.nn.Module, mask: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """BLOOM makes its ALiBi from a mask without trees: give every block our mask, and its ALiBi at our positions."""

    def change(block: torch.nn.Module, inputs: tuple, kwargs: dict) -> tuple[tuple, dict]:
        alibi = kwargs["alibi"]  # (batch · heads, 1, keys), slope × 0, 1, 2 …
        heads = alibi.shape[0] // len(positions)
        moved = alibi.gather(-1, positions.repeat_interleave(heads, dim=0)[:, None])
        return inputs, kwargs | {"attention_mask": mask, "alibi": moved}

    handles = [block.register_forward_pre_hook(change, with_kwargs=True) for block in model.transformer.h]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
