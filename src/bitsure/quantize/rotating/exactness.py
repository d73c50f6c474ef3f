"""The check that rotations leave a model's function as it is, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.inference.rotations import Rotations
from bitsure.quantize.walk.targets import find_blocks

SAME = 1e-9  # ‖difference‖ / ‖logits‖
BLOCKS, TOKENS = 2, 12  # of the model that the check runs, and of its text


class InDouble(TorchFunctionMode):
    """Compute in float64 where a model asks for float32, as norms and softmax do whatever their input is."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch with float64 in place of float32."""
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        wide = tuple(torch.float64 if value is torch.float32 else value for value in args)
        named = {key: torch.float64 if value is torch.float32 else value for key, value in (kwargs or {}).items()}
        return func(*wide, **named)


@torch.no_grad()
def check_exact(model: nn.Module, rotations: Rotations) -> None:
    """Check on a copy of a model's first blocks in float64 that its logits stay what they are, after each rotation.

    Args:
        model: The full-precision model, not rotated.
        rotations: Its rotations.

    Raises:
        UserError: If one changes the logits; it is named.
    """
    with _beginning(model):
        small: Any = copy.deepcopy(model).double()
    names = set(dict(small.named_modules()))
    with InDouble():
        expected = _logits(small)
        for part in rotations.folded:
            inside = part.within(names)
            if inside is None:
                continue
            inside.apply(small)
            for layer in inside.online_layers:
                InferenceRounding().on_layers([small.get_submodule(layer)], InputTransform(rotation=inside.rotation))
            change = ((_logits(small) - expected).norm() / expected.norm()).item()
            if not change <= SAME:
                raise UserError(
                    f"quant.transforms=[rotate]: {part.kind} does not fit {type(model).__name__}: its logits change by "
                    f"{change:.2g} of their norm in float64 before anything is rounded, and at most {SAME:g} is allowed. "
                    f"Something that is no linear layer or norm reads what it rotates. Leave {part.kind} out of "
                    "quant.rotation.kinds."
                )


@contextmanager
def _beginning(model: Any) -> Iterator[None]:
    """Leave a model its first blocks and the first tokens of its vocabulary alone inside the `with` block."""
    prefix, blocks = find_blocks(model)
    parent, _, name = prefix.rpartition(".")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows = max(TOKENS, 1 + (getattr(embedding, "padding_idx", None) or 0))
    whole = [(module, key, tensor) for module in (embedding, head) for key, tensor in module.named_parameters(recurse=False)]
    cut = {tensor: nn.Parameter(tensor[:rows], requires_grad=False) for _, _, tensor in whole}  # What is tied stays tied.
    for module, key, tensor in whole:
        setattr(module, key, cut[tensor])
    setattr(model.get_submodule(parent), name, blocks[:BLOCKS])
    try:
        yield
    finally:
        setattr(model.get_submodule(parent), name, blocks)
        for module, key, tensor in whole:
            setattr(module, key, tensor)


def _logits(model: Any) -> torch.Tensor:
    ids = torch.arange(TOKENS, device=next(model.parameters()).device)[None] % model.config.vocab_size
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
