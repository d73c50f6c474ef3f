"""The proof that rotations and divisions leave a model's function as it is, and what rotations do to layers' inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.targets import block_linears
from bitsure.results.quantization import TransformEffect

# The largest ‖difference‖ / ‖logits‖ of one function whose weights were changed and rounded to their type again.
SAME = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 2e-2}
TOKENS = 512  # of the held-out text


@torch.no_grad()
def apply_transforms(model: nn.Module, scheme: InferenceScheme, held_out: torch.Tensor) -> TransformEffect | None:
    """Rotate, divide and multiply in a full-precision model as its scheme says.

    Args:
        model: The full-precision model; its weights are changed.
        scheme: Its rotations and divisions.
        held_out: Token ids, shape (windows, seqlen).

    Returns:
        What rotations did to the layers' inputs; None if there are none.

    Raises:
        UserError: If the model computes something else after that.
    """
    expected, peaks = _run(model, held_out)
    scheme.rotations.apply(model)
    for division in scheme.divisions:
        division.apply(model.get_submodule)
    attach(model, InferenceScheme(divisions=scheme.divisions, rotations=scheme.rotations))
    logits, rotated_peaks = _run(model, held_out)
    change = ((logits - expected).float().norm() / expected.float().norm()).item()
    if not change <= SAME[expected.dtype]:
        transforms = ",".join(["rotate"] * bool(scheme.rotations) + ["smooth"] * bool(scheme.divisions))
        raise UserError(
            f"quant.transforms=[{transforms}] changed what the model computes before anything was rounded, by {change:.2g} of "
            "it. No score is taken from such a model."
        )
    if not scheme.rotations:
        return None
    return TransformEffect(
        measure="largest |input| ÷ root mean square of inputs: rotated ÷ not rotated",
        layers={name: rotated_peaks[name] / peak if peak else 1.0 for name, peak in peaks.items()},
        nothing_to_move=[],
        rotations=scheme.rotations.names,
        learned_loss=scheme.rotations.learned_loss,
    )


def _run(model: Any, held_out: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the logits, and layer → the largest |input| over the inputs' root mean square."""
    ids = held_out[:1, :TOKENS].to(next(model.parameters()).device)
    with _peaks(model) as peaks:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits, peaks


@contextmanager
def _peaks(model: nn.Module) -> Iterator[dict[str, float]]:
    """Collect layer → the largest |input| over the inputs' root mean square, of the passes inside the `with` block."""
    peaks: dict[str, float] = {}

    def watch(name: str, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].float()
        root = x.square().mean().sqrt().item() if x.numel() else 0.0
        peaks[name] = x.abs().max().item() / root if root else 0.0

    with ExitStack() as stack:
        for name, layer in block_linears(model).items():
            handle = layer.register_forward_pre_hook(lambda layer, inputs, name=name: watch(name, inputs))
            stack.callback(handle.remove)
        yield peaks
