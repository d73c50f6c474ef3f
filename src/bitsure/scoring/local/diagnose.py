"""Where a model's numbers break."""

from __future__ import annotations

import torch

from bitsure.scoring.local.forward import input_device


@torch.inference_mode()
def first_broken_module(model: torch.nn.Module, tokens: list[int]) -> str | None:
    """The name of the first module, innermost first, whose output is not finite; None if all are."""
    broken: list[str] = []

    def watch(name: str):
        def look(module: torch.nn.Module, inputs: tuple, output: object) -> None:
            found = output[0] if isinstance(output, tuple) else output
            if not broken and isinstance(found, torch.Tensor) and not found.isfinite().all():
                broken.append(name)

        return look

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        model(input_ids=torch.tensor([tokens], device=input_device(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return broken[0] if broken else None
