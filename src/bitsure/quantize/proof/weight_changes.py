"""The proof that a quantizer did something: what changed, by how much, and what it cost in bits."""

from __future__ import annotations

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import InputTransform
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.proof import inference_changes
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import block_linears, linears, matrix, skipped_modules
from bitsure.quantize.weights.formats import CodebookWeight, ElementWeight, IntegerWeight, Weight


@torch.no_grad()
def report(
    model: nn.Module,
    weights: dict[str, Weight],
    others: dict[str, torch.Tensor],
    held_out: torch.Tensor,
    whole_model: bool = False,
    scheme: InferenceScheme | None = None,
    stored_bits: float | None = None,
) -> dict:
    """What quantization changed, for quantization.json.

    model: the full-precision model, whose weights are changed as the scheme's divisions say; weights, others, scheme: what a
    checkpoint holds, read back from disk; held_out: (windows, seqlen) token ids that the quantizer did not see; whole_model:
    it is a cast, which is meant for every tensor, and may find some that fit already; stored_bits: of a weight in the model's
    own files, which weights that are kept still take (default: as they are loaded). Raises UserError naming the layers,
    activations, keys or values that should have changed and did not.
    """
    scheme = scheme or InferenceScheme()
    if scheme.divisions:
        inference_changes.divide(model, scheme, held_out)
    originals = {name: matrix(layer) for name, layer in block_linears(model).items()}
    kept = not weights and bool(scheme)  # the checkpoint is about what is rounded at run time
    targets = {} if kept else originals
    dequantized = {name: weight.dequantize() for name, weight in weights.items() if name in originals}
    full = model.state_dict()
    rounded = sorted(name for name, tensor in others.items() if _differs(full.get(name), tensor))
    if broken := [name for name, tensor in others.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise UserError(f"{', '.join(broken)}: NaN or infinite after quantization. No score is taken from such a model.")
    aims = {name: _reassembled(original, name, scheme) for name, original in originals.items()}
    _check_all_changed(aims if targets else {}, dequantized, whole_model and _some_changed(targets, dequantized, rounded))
    as_read = {name: scheme.layer_matrix(weights[name]) for name in dequantized} or aims
    errors = output_errors(model, as_read, held_out, _inputs(originals, weights, scheme))
    squared_change = squared_norm = 0.0
    layers = {}
    for name, original in aims.items():
        change = (dequantized[name] - original.float()).square().sum().item() if name in dequantized else 0.0
        norm = original.float().square().sum().item()
        squared_change, squared_norm = squared_change + change, squared_norm + norm
        layers[name] = {"weight_error": _ratio(change, norm), "output_error": errors[name]}
    n_quantized = sum(original.numel() for original in originals.values())
    if kept:
        bits = stored_bits or 8 * next(iter(originals.values())).element_size()
    else:
        bits = sum(weight.storage_bits for weight in weights.values()) / n_quantized
    share = 1.0 if whole_model else 0.0 if kept else n_quantized / sum(p.numel() for p in model.parameters())
    return {
        "modules_quantized": sorted(targets),
        "modules_skipped": {} if whole_model else _kept(originals if kept else {}) | skipped_modules(model),
        "parameter_share": share,
        "bits_per_weight": bits,
        "relative_error": _ratio(squared_change, squared_norm),
        "group_sizes": _group_sizes(weights),
        "other_tensors_rounded": rounded,
        "layers": layers,
        **inference_changes.report(model, weights, scheme, held_out),
    }


def _kept(layers: dict[str, torch.Tensor]) -> dict[str, str]:
    return dict.fromkeys(layers, "weights are kept")


def _inputs(
    originals: dict[str, torch.Tensor], weights: dict[str, Weight], scheme: InferenceScheme
) -> dict[str, InputTransform]:
    """What is done to the layers' inputs where they are rounded, beside divisions."""
    if scheme.activations is None:
        return {}
    multiplied = scheme.input_factors(weights)
    return {
        name: InputTransform(
            multiplied.get(name), scheme.activations, scheme.static_ranges.get(name), None, scheme.reassembly_of(name)
        )
        for name in originals
    }


def _reassembled(original: torch.Tensor, name: str, scheme: InferenceScheme) -> torch.Tensor:
    """What a layer's quantized weight stands for."""
    reassembly = scheme.reassembly_of(name)
    return original if reassembly is None else reassembly.weight(original)


def _some_changed(originals: dict[str, torch.Tensor], dequantized: dict[str, torch.Tensor], rounded: list[str]) -> bool:
    return bool(rounded) or any(not torch.equal(dequantized[name], originals[name].float()) for name in dequantized)


def _check_all_changed(originals: dict[str, torch.Tensor], dequantized: dict[str, torch.Tensor], may_stay: bool) -> None:
    shaped = {name: w for name, w in dequantized.items() if w.shape == originals[name].shape}
    problems = {
        "were not quantized": [name for name in originals if name not in dequantized],
        "hold NaN or infinite weights": [name for name, w in dequantized.items() if not w.isfinite().all()],
        "have another shape": [name for name in dequantized if name not in shaped],
        "are unchanged": [name for name, w in shaped.items() if not may_stay and torch.equal(w, originals[name].float())],
    }
    found = [f"{len(names)} of {len(originals)} layers {what}: {', '.join(names)}" for what, names in problems.items() if names]
    if found:
        raise UserError("The quantizer did not do its work. " + ". ".join(found) + ". No score is taken from such a model.")


def output_errors(
    model: nn.Module,
    dequantized: dict[str, torch.Tensor],
    held_out: torch.Tensor,
    inputs: dict[str, InputTransform] | None = None,
) -> dict[str, float]:
    """‖Q(X)Ŵᵀ − XWᵀ‖ / ‖XWᵀ‖ for each layer, with X the inputs that the full-precision model gives it (no bias).

    dequantized: Ŵ by layer; inputs: what Q is, where inputs are rounded. Raises UserError naming the layers that no token
    reached.
    """
    sums: dict[str, torch.Tensor] = {}
    inputs = inputs or {}

    def watch(name: str):
        def hook(layer, given):
            x, weight = given[0].flatten(0, -2), matrix(layer).float()
            expected = x.float() @ weight.T
            quantized = dequantized[name].to(matrix(layer)).float()
            change = x.float() @ (quantized - weight).T  # a difference of half-precision products is none
            if name in inputs:
                change = inputs[name](x).float() @ quantized.T - expected
            found = torch.stack([part.square().sum() for part in (change, expected)]).double().cpu()
            sums[name] = sums.get(name, 0) + found

        return hook

    handles = []
    try:
        for prefix, block, _ in walk(model, held_out):
            layers = linears(block).items()
            handles += [layer.register_forward_pre_hook(watch(f"{prefix}.{name}")) for name, layer in layers]
    finally:
        for handle in handles:
            handle.remove()
    if idle := set(dequantized) - set(sums):
        raise UserError(f"No held-out token reached {', '.join(sorted(idle))}: give other calibration text.")
    if broken := sorted(name for name, found in sums.items() if not found.isfinite().all()):
        raise UserError(f"NaN or infinite outputs on the calibration text: {', '.join(broken)}. No score is taken from that.")
    return {name: _ratio(*found.tolist()) for name, found in sums.items()}


def _ratio(change: float, norm: float) -> float:
    """The root of the ratio of two sums of squares; 0 where nothing changed, also of nothing."""
    return (change / norm) ** 0.5 if norm else 0.0


def _differs(original: torch.Tensor | None, tensor: torch.Tensor) -> bool:
    return original is not None and not torch.equal(original.cpu().float(), tensor.float())


def _group_sizes(weights: dict[str, Weight]) -> dict[str, int]:
    """How many weights share a scale → in how many layers; a width that no group divides leaves a shorter last group."""
    found: dict[str, int] = {}
    for weight in weights.values():
        match weight:
            case IntegerWeight() | ElementWeight() if weight.scales.numel() == 1:
                sizes = [weight.codes.numel()]
            case IntegerWeight() | ElementWeight():
                sizes = torch.bincount(weight.group_of).unique().tolist()
            case CodebookWeight():
                sizes = [weight.block_size]
            case _:
                continue
        key = " and ".join(str(size) for size in sorted(sizes, reverse=True))
        found[key] = found.get(key, 0) + 1
    return found
