"""A model's logits by way of the hidden states before its output head.

States are small: they can be kept, and give the logits of a few tokens at a time again. Gemma caps its logits, Cohere and
Granite scale them. So logits are made by the model's own forward pass, without its blocks and with other states at the head's
input, and not by the head's matrix alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.scoring.device_copies import send
from bitsure.scoring.local.forward import input_device, output_head
from bitsure.scoring.local.padding import state_restored
from bitsure.scoring.local.patches import relu_in_place, states_before_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-4  # of a logit, as a share of the largest; equal products differ by nothing


@torch.inference_mode()
def head_states(model: PreTrainedModel, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the hidden states before a model's head.

    Args:
        model: A causal language model with an output head.
        ids: Token ids, shape (windows, n).
        rows: The tokens whose states are wanted, counted through all windows, shape (m,).

    Returns:
        Shape (m, width).
    """
    device = input_device(model)
    with states_before_head(_head(model), send(rows, device)) as states, state_restored(model), relu_in_place(model):
        model(input_ids=send(ids, device), use_cache=False)
    return states[0]


@torch.inference_mode()
def whole_logits(model: PreTrainedModel, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return what `head_states` gives the states of, shape (m, vocabulary), from a plain pass that makes all logits."""
    with state_restored(model):
        logits: torch.Tensor = model(input_ids=send(ids, input_device(model)), use_cache=False).logits
    return logits.flatten(0, 1)[send(rows, logits.device)]


@torch.inference_mode()
def logits_of(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """Return the logits of hidden states before a model's head, shape (m, width) → (m, vocabulary).

    Args:
        model: A model for which `why_not_from_states` returns None, with its blocks or without.
        states: What `head_states` returns.
    """

    def replace(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (states[None].to(inputs[0].device), *inputs[1:])

    token = torch.zeros(1, 1, dtype=torch.long, device=input_device(model))
    handle = _head(model).register_forward_pre_hook(replace)
    try:
        with _without_blocks(model), state_restored(model):
            logits: torch.Tensor = model(input_ids=token, use_cache=False).logits[0]
    finally:
        handle.remove()
    return logits


def why_not_from_states(model: PreTrainedModel, ids: torch.Tensor) -> str | None:
    """Return why a model's logits cannot be had from the states before its head; None if they can.

    Args:
        model: A causal language model.
        ids: A few token ids, shape (1, n), whose logits are computed in both ways.
    """
    if output_head(model) is None:
        return "the model has no output head of its own"
    rows = torch.arange(ids.shape[1])
    expected = whole_logits(model, ids, rows)
    try:
        logits = logits_of(model, head_states(model, ids, rows))
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # A probe: the plain pass works, and a family's forward may raise any of these where it needs its blocks.
        if is_out_of_memory(error):
            raise
        return f"it cannot run without its blocks ({type(error).__name__}: {error})"
    if logits.shape != expected.shape:
        return f"logits from the states before its head have the shape {tuple(logits.shape)}, not {tuple(expected.shape)}"
    off, largest = (float(values.abs().nan_to_num().max()) for values in (logits - expected, expected))
    return None if off <= TOLERANCE * largest else f"logits from the states before its head are off by {off:.3g}"


def remove_blocks(model: PreTrainedModel) -> None:
    """Remove a model's blocks, to free their memory: what is left makes logits from states."""
    parent, name = _blocks(model)
    setattr(parent, name, nn.ModuleList())


def _head(model: PreTrainedModel) -> nn.Module:
    head = output_head(model)
    assert head is not None, "a model without an output head has no states before it"
    return head


@contextmanager
def _without_blocks(model: PreTrainedModel) -> Iterator[None]:
    parent, name = _blocks(model)
    blocks = getattr(parent, name)
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
