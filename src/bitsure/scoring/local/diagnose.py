"""Which layer of a model is the first whose output is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from bitsure.scoring.local.logits_from_states import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def first_broken_module(model: PreTrainedModel, tokens: list[int]) -> str | None:
    """Run a model on some tokens.

    Returns:
        The name of the first module, innermost first, whose output is not finite; None if all outputs are.
    """
    broken: list[str] = []

    def watch(name: str) -> Callable[[torch.nn.Module, object, object], None]:
        def check(module: torch.nn.Module, inputs: object, output: object) -> None:
            values = output[0] if isinstance(output, tuple) else output
            if not broken and isinstance(values, torch.Tensor) and not values.isfinite().all():
                broken.append(name)

        return check

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        model(input_ids=torch.tensor([tokens], device=input_device(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return broken[0] if broken else None
