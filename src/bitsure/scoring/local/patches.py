"""What is changed in a model while trees run through it, and changed back afterwards.

Some families need our mask put in by hand; the rest saves work that no scored token needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bitsure.models.load import BUILD_ERRORS
from bitsure.scoring.device_copies import send
from bitsure.scoring.local.logits_from_states import input_device
from bitsure.scoring.local.once_a_model import once_a_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION_PART = {"cpu": 256}  # tokens of a row whose attention is computed at once; elsewhere all of them are
ATTENTION_NAME = "bitsure"  # of ours in transformers' registry


@contextmanager
def states_before_head(head: torch.nn.Module, nodes: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Catch the hidden states that go into the output head, and give it only one of them.

    Args:
        head: The model's output head.
        nodes: The tokens whose states are caught, counted through the flattened batch, shape (n,).

    Yields:
        A list that holds the states, shape (n, width), after the pass.
    """
    states: list[torch.Tensor] = []

    def catch(head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states.append(inputs[0].flatten(0, 1)[nodes.to(inputs[0].device)])
        return (states[0][None, :1], *inputs[1:])

    handle = head.register_forward_pre_hook(catch)
    try:
        yield states
    finally:
        handle.remove()


@contextmanager
def last_mlp_at(model: PreTrainedModel, nodes: torch.Tensor) -> Iterator[None]:
    """Run the MLP of the last block for some tokens only; its output is zero for the others, which nothing reads any more.

    Args:
        model: The model.
        nodes: The tokens, counted through the flattened batch, shape (n,).
    """
    # The blocks are the outermost list. `find_blocks` of quantize wants ordinary linear layers, which packed kernels are not.
    last = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))[-1]
    first, final = _mlp_ends(last)
    if first is None or final is None or _has_experts(first):  # the first batch must reach every expert that is rounded
        yield
        return
    shape: list[torch.Size] = []

    def choose(mlp: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        shape[:] = [inputs[0].shape]
        ahead = (1,) * (inputs[0].ndim - 2)
        return tuple(x.flatten(0, -2)[nodes.to(x.device)].reshape(*ahead, len(nodes), -1) for x in inputs)

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
def attention_in_parts(
    model: PreTrainedModel, mask: torch.Tensor, ends: torch.Tensor, part: int | None = None
) -> Iterator[None]:
    """Compute attention for a part of each row at a time, over the keys that some token of the part attends to.

    In a long row of many questions after the same examples, these keys are the examples and a few of the questions. Nothing
    changes on a device without ATTENTION_PART, for short rows, or for a model that does not use transformers' sdpa attention.

    Args:
        model: The model.
        mask: The additive mask, shape (rows, 1, n, n), 0 where a token attends to a key.
        ends: For each token one past the last token that attends to it, in main memory, shape (rows, n).
        part: The tokens of a part; None: ATTENTION_PART.
    """
    n, part = mask.shape[-1], part or ATTENTION_PART.get(mask.device.type)
    if part is None or n <= part or not takes_attention(model):
        yield
        return
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    parts = []
    for queries in (slice(first, min(first + part, n)) for first in range(0, n, part)):
        keys = send((ends[:, : queries.stop] > queries.start).any(0).nonzero().flatten(), mask.device)
        parts.append((queries, keys, mask[:, :, queries, keys]))

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **settings: Any,
    ) -> tuple[torch.Tensor, None]:
        if query.device != mask.device:  # accelerate computes elsewhere
            return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        outs = [
            sdpa_attention_forward(module, query[:, :, queries], key[:, :, keys], value[:, :, keys], part_mask, **settings)[0]
            for queries, keys, part_mask in parts
        ]
        return torch.cat(outs, dim=1), None

    with _attention(model, attend):
        yield


@once_a_model
def takes_attention(model: PreTrainedModel) -> bool:
    """Return whether a model computes sdpa attention with the function of that name in transformers' registry, by trying it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    calls = []

    def attend(*args: Any, **settings: Any) -> tuple[torch.Tensor, None]:
        calls.append(1)
        return sdpa_attention_forward(*args, **settings)

    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return False
    try:
        with _attention(model, attend), torch.inference_mode():
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=input_device(model)), use_cache=False)
    except BUILD_ERRORS:  # The name is unknown to a family with a list of its own.
        return False
    return bool(calls)


@contextmanager
def _attention(model: PreTrainedModel, attend: Callable[..., tuple[torch.Tensor, None]]) -> Iterator[None]:
    """Let a model that computes sdpa attention compute it with a function of ours."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS[ATTENTION_NAME] = attend
    model.config._attn_implementation = ATTENTION_NAME
    try:
        yield
    finally:
        model.config._attn_implementation = "sdpa"
        ALL_ATTENTION_FUNCTIONS.pop(ATTENTION_NAME)


@contextmanager
def relu_in_place(model: PreTrainedModel) -> Iterator[None]:
    """Let ReLU layers overwrite their input: new memory for the widest layer's output takes longer than the operation."""
    fresh = [part for part in model.modules() if isinstance(part, torch.nn.ReLU) and not part.inplace]
    for part in fresh:
        part.inplace = True
    try:
        yield
    finally:
        for part in fresh:
            part.inplace = False


@contextmanager
def bloom_mask(model: PreTrainedModel, mask: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """Give every block of BLOOM our mask, and its ALiBi at our positions: by itself it makes both for inputs without trees.

    Args:
        model: A BLOOM model.
        mask: The additive mask, shape (rows, 1, n, n).
        positions: The position of each token, shape (rows, n).
    """

    def change(
        block: torch.nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        alibi = kwargs["alibi"]  # (batch · heads, 1, keys), slope × 0, 1, 2 …
        heads = alibi.shape[0] // len(positions)
        moved = alibi.gather(-1, positions.repeat_interleave(heads, dim=0)[:, None])
        return inputs, kwargs | {"attention_mask": mask, "alibi": moved}

    handles = [
        block.register_forward_pre_hook(change, with_kwargs=True) for block in model.get_submodule("transformer.h").children()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mlp_ends(block: torch.nn.Module) -> tuple[torch.nn.Module | None, torch.nn.Module | None]:
    """Return the first and the last module of a block's MLP; OPT's two layers are the block's own."""
    if hasattr(block, "fc1"):
        return block.get_submodule("fc1"), block.get_submodule("fc2")
    mlp = getattr(block, "mlp", None)
    return mlp, mlp


def _has_experts(mlp: torch.nn.Module) -> bool:
    """Return whether an MLP is a mixture of experts, which are a list of modules or share a parameter of three dimensions."""
    listed = any(isinstance(part, torch.nn.ModuleList) for part in mlp.modules())
    return listed or any(parameter.ndim > 2 for parameter in mlp.parameters())
