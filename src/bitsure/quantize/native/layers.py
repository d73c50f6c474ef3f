"""Layers that read the same input, quantized together: transforms in their order, then rounding."""

from __future__ import annotations

import dataclasses

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.native.chain_quantizer import RoundingQuantizer
from bitsure.quantize.native.transforms import search_clip, search_scales
from bitsure.quantize.walk.blocks import Inputs
from bitsure.quantize.weights import ElementWeight, IntegerWeight

Moved = dict[str, dict[str, float]]  # as in `InferenceScheme`


def quantize_layers(
    layers: dict[str, torch.Tensor], inputs: Inputs, quant: RoundingQuantizer, names: str, scales: torch.Tensor | None = None
) -> tuple[dict[str, IntegerWeight | ElementWeight], Moved]:
    """Weights (out, in) that read the same input: transforms in their order, then rounding; all rows at once.

    scales: (in,), what the inputs have been divided by already; else they are searched here where quant.transforms says so.
    Returns the weights by name, and the transforms' effects (`InferenceScheme.transform_effects`), for `names` or each layer.
    """
    check_finite(inputs.hessian.diagonal(), names)  # Σx²: no x that is not finite leaves it so
    if quant.group_size == 0 and len(layers) > 1:  # one scale a tensor: one tensor at a time
        weights: dict[str, IntegerWeight | ElementWeight] = {}
        moved: Moved = {}
        for name, weight in layers.items():
            found, went = quantize_layers({name: weight}, inputs, quant, name, scales)
            weights |= found
            for transform, how_far in went.items():
                moved.setdefault(transform, {}).update(how_far)
        return weights, moved
    weight, hessian = torch.cat([layer.detach().float() for layer in layers.values()]), inputs.hessian
    moved, shrink = {}, ()
    if scales is None and "scale" in quant.transforms:
        scales = search_scales([weight], inputs, quant)
        hessian = hessian / scales / scales[:, None]
    if scales is not None:
        weight = weight * scales
        moved["scale"] = {names: (scales.max() / scales.min()).item()}
    for clip in ("clip", "clip_asymmetric"):
        if clip in quant.transforms:
            shrink = search_clip(weight, hessian, quant, apart=clip == "clip_asymmetric")
            moved[clip] = {names: (torch.stack(shrink) < 1).any(0).float().mean().item()}
    rounded = quant.round_weight(weight, hessian, shrink, names)
    if scales is not None:
        rounded = dataclasses.replace(rounded, input_scales=(1 / scales).half())
    rows = [len(layer) for layer in layers.values()]
    return dict(zip(layers, _split(rounded, rows), strict=True)), moved


def _split(weight: IntegerWeight | ElementWeight, rows: list[int]) -> list[IntegerWeight | ElementWeight]:
    if len(rows) == 1:
        return [weight]
    fields = [key for key in ("codes", "scales", "zeros") if hasattr(weight, key)]
    parts = zip(*(getattr(weight, key).split(rows) for key in fields), strict=True)
    return [dataclasses.replace(weight, **dict(zip(fields, part, strict=True))) for part in parts]


def to_cpu(weight: IntegerWeight | ElementWeight) -> IntegerWeight | ElementWeight:
    """Return a weight with its tensors on the CPU."""
    fields = {field.name: getattr(weight, field.name) for field in dataclasses.fields(weight)}
    return type(weight)(**{key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in fields.items()})


def check_finite(values: torch.Tensor, names: str) -> None:
    """Raise UserError naming the layers whose inputs these values are of, if any is none that can be calibrated on."""
    if not values.isfinite().all():
        raise UserError(f"The inputs of {names} hold NaN or infinite values on the calibration text.")
