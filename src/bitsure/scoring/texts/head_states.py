"""The hidden states before a model's output head: small enough to be kept, they give the logits of a few tokens at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bitsure.base.errors import in_one_line
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.scoring.device_copies import send
from bitsure.scoring.local.logits_from_states import input_device, logits_of, output_head, required_head
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
    with states_before_head(required_head(model), send(rows, device)) as states, state_restored(model), relu_in_place(model):
        model(input_ids=send(ids, device), use_cache=False)
    return states[0]


@torch.inference_mode()
def whole_logits(model: PreTrainedModel, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return what `head_states` gives the states of, shape (m, vocabulary), from a plain pass that makes all logits."""
    with state_restored(model):
        logits: torch.Tensor = model(input_ids=send(ids, input_device(model)), use_cache=False).logits
    return logits.flatten(0, 1)[send(rows, logits.device)]


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
        return f"it cannot run without its blocks ({in_one_line(error)})"
    if logits.shape != expected.shape:
        return f"logits from the states before its head have the shape {tuple(logits.shape)}, not {tuple(expected.shape)}"
    off, largest = (float(values.abs().nan_to_num().max()) for values in (logits - expected, expected))
    return None if off <= TOLERANCE * largest else f"logits from the states before its head are off by {off:.3g}"
