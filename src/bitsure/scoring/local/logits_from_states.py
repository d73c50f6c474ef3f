"""A model's logits from hidden states before its output head.

Gemma caps its logits, Cohere and Granite scale them. So logits are made by the model's own forward pass, without its blocks and
with other states at the head's input, and not by the head's matrix alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from bitsure.scoring.local.padding import state_restored

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def input_device(model: PreTrainedModel) -> torch.device:
    """Return where a model takes its inputs: the CPU if accelerate brings its first weights only when they are needed."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


def output_head(model: PreTrainedModel) -> nn.Module | None:
    """Return a model's output head; None if it has none of its own."""
    output: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return output


def required_head(model: PreTrainedModel) -> nn.Module:
    """Return the output head of a model that has one."""
    head = output_head(model)
    assert head is not None, "a model without an output head has no states before it"
    return head


@torch.inference_mode()
def logits_of(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """Return the logits of hidden states before a model's head, shape (m, width) → (m, vocabulary).

    Args:
        model: A model that runs without its blocks, with them or after `remove_blocks`.
        states: The hidden states that go into its head.
    """

    def replace(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (states[None].to(inputs[0].device), *inputs[1:])

    token = torch.zeros(1, 1, dtype=torch.long, device=input_device(model))
    handle = required_head(model).register_forward_pre_hook(replace)
    try:
        with _without_blocks(model), state_restored(model):
            logits: torch.Tensor = model(input_ids=token, use_cache=False).logits[0]
    finally:
        handle.remove()
    return logits


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return a model's blocks."""
    parent, name = _blocks(model)
    blocks: nn.ModuleList = getattr(parent, name)
    return blocks


def remove_blocks(model: PreTrainedModel) -> None:
    """Remove a model's blocks, to free their memory: what is left makes logits from states."""
    parent, name = _blocks(model)
    setattr(parent, name, nn.ModuleList())


@contextmanager
def _without_blocks(model: PreTrainedModel) -> Iterator[None]:
    parent, name = _blocks(model)
    blocks = blocks_of(model)
    setattr(parent, name, nn.ModuleList())
    try:
        yield
    finally:
        setattr(parent, name, blocks)


def _blocks(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """Return the module that holds a model's blocks, and its attribute for them: the outermost list."""
    path = next(name for name, part in model.named_modules() if isinstance(part, nn.ModuleList))
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name
