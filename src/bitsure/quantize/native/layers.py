"""Layers that read the same input, quantized together: transforms in their order, then rounding."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.native.chain_quantizer import RoundingQuantizer
from bitsure.quantize.native.transforms import search_clip, search_scales
from bitsure.quantize.walk.layer_inputs import Inputs
from bitsure.quantize.weights import ElementWeight, IntegerWeight

Effects = dict[str, dict[str, float]]  # as `InferenceScheme.transform_effects`
RoundedWeight = IntegerWeight | ElementWeight


def quantize_layers(
    layers: dict[str, torch.Tensor], inputs: Inputs, quant: RoundingQuantizer, names: str, scales: torch.Tensor | None = None
) -> tuple[dict[str, RoundedWeight], Effects]:
    """Apply the transforms of weights to layers that read the same input, then round them; all rows at once.

    Args:
        layers: Name → weight, shape (out, in).
        inputs: Statistics of their input.
        quant: The transforms and how weights are rounded.
        names: What the layers are called in messages and effects.
        scales: What the input has been divided by already, shape (in,); None: searched here if `quant.transforms` has scale.

    Returns:
        The rounded weights by name, and the transforms' effects, for `names` or, with one scale a tensor, for each layer.

    Raises:
        UserError: If the inputs held NaN or infinite values.
    """
    check_finite(inputs.hessian.diagonal(), names)  # A value that is not finite makes Σx² not finite.
    effects: Effects = {}
    parts = _rounded_together(layers, quant)
    if len(parts) > 1 or parts[0][0] is not quant:
        weights: dict[str, RoundedWeight] = {}
        for own, part in parts:
            rounded_part, part_effects = quantize_layers(part, inputs, own, ", ".join(part), scales)
            weights |= rounded_part
            add_effects(effects, part_effects)
        return {name: weights[name] for name in layers}, effects
    weight, hessian = torch.cat([layer.detach().float() for layer in layers.values()]), inputs.hessian
    shrink: tuple[torch.Tensor, ...] = ()
    if scales is None and "scale" in quant.transforms:
        scales = search_scales([weight], inputs, quant)
        hessian = hessian / scales / scales[:, None]
    if scales is not None:
        weight = weight * scales
        effects["scale"] = {names: (scales.max() / scales.min()).item()}
    for clip in ("clip", "clip_asymmetric"):
        if clip in quant.transforms:
            shrink = search_clip(weight, hessian, quant, apart=clip == "clip_asymmetric")
            effects[clip] = {names: (torch.stack(shrink) < 1).any(0).float().mean().item()}
    rounded = quant.round_weight(weight, hessian, shrink, names)
    if scales is not None:
        rounded = dataclasses.replace(rounded, input_scales=(1 / scales).half())
    rows = [len(layer) for layer in layers.values()]
    return dict(zip(layers, _split(rounded, rows), strict=True)), effects


def _rounded_together(
    layers: dict[str, torch.Tensor], quant: RoundingQuantizer
) -> list[tuple[RoundingQuantizer, dict[str, torch.Tensor]]]:
    """Return the layers that are rounded as one: of the same bits, and with one scale a tensor each by itself."""
    parts: dict[object, tuple[RoundingQuantizer, dict[str, torch.Tensor]]] = {}
    for name, weight in layers.items():
        own = quant.of_layer(name)
        key = name if quant.group_size == 0 else own.bits
        parts.setdefault(key, (own, {}))[1][name] = weight
    return list(parts.values())


def add_effects(effects: Effects, more: Effects) -> None:
    """Add transforms' effects on further layers."""
    for transform, by_layers in more.items():
        effects.setdefault(transform, {}).update(by_layers)


def _split(weight: RoundedWeight, rows: list[int]) -> list[RoundedWeight]:
    """Return the weights of layers whose rows (so many of each) stand together."""
    if len(rows) == 1:
        return [weight]
    fields = [key for key in ("codes", "scales", "zeros") if hasattr(weight, key)]
    parts = zip(*(getattr(weight, key).split(rows) for key in fields), strict=True)
    return [dataclasses.replace(weight, **dict(zip(fields, part, strict=True))) for part in parts]


def to_cpu(weight: RoundedWeight) -> RoundedWeight:
    """Return a weight with its tensors on the CPU."""
    fields = {field.name: getattr(weight, field.name) for field in dataclasses.fields(weight)}
    on_cpu: dict[str, Any] = {key: value.cpu() for key, value in fields.items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(weight, **on_cpu)


def check_finite(values: torch.Tensor, names: str) -> None:
    """Raise UserError if a statistic of the input of these layers is NaN or infinite."""
    if not values.isfinite().all():
        raise UserError(f"The inputs of {names} hold NaN or infinite values on the calibration text.")
