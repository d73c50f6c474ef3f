"""The proof that a quantizer changed the weights: what changed, by how much, and what it costs in bits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.inference.hooks import InputTransform
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.proof.inference_changes import prove_inference
from bitsure.quantize.proof.kept_function import apply_transforms
from bitsure.quantize.proof.output_errors import OutputError, output_errors, root_ratio
from bitsure.quantize.walk.targets import as_stored, block_linears, find_blocks, matrix, skipped_modules
from bitsure.quantize.weights import Weight
from bitsure.results.quantization import LayerError, Quantization

log = logging.getLogger(__name__)

FIRST_TOKEN_RATIO = 3  # first_token_error / output_error from which on a layer counts in the warning
Matrices = Mapping[str, torch.Tensor]


@torch.no_grad()
def prove(
    model: nn.Module,
    checkpoint: CheckpointContents,
    held_out: torch.Tensor,
    *,
    whole_model: bool = False,
    stored_bits: float | None = None,
) -> Quantization:
    """Return what a checkpoint changes in a model.

    Args:
        model: The full-precision model; its weights are changed as the scheme's rotations and divisions say.
        checkpoint: What was read back from disk.
        held_out: Token ids that the quantizer did not see, shape (windows, seqlen).
        whole_model: Whether every tensor was to change, as in a cast; some may be representable already.
        stored_bits: Bits of a weight in the model's own files, which weights that are kept still take; as loaded by default.

    Raises:
        UserError: If layers, activations, keys or values that should have changed did not, or numbers are not finite.
    """
    scheme = checkpoint.scheme
    rotated = apply_transforms(model, scheme, held_out) if scheme.divisions or scheme.rotations else None
    originals = {name: matrix(layer) for name, layer in block_linears(model).items()}
    expected = {name: _reassembled(original, name, checkpoint.scheme) for name, original in originals.items()}
    dequantized = {name: weight.dequantize() for name, weight in checkpoint.weights.items() if name in originals}
    rounded = _rounded_others(model, checkpoint.others)
    if not checkpoint.weights_are_kept:
        may_stay = whole_model and (bool(rounded) or _any_changed(originals, dequantized))
        _check_quantized(expected, dequantized, checkpoint, may_stay)
    left_out = _left_out(model, checkpoint)
    multiplied = {name: checkpoint.scheme.layer_matrix(checkpoint.weights[name]) for name in dequantized} or expected
    if checkpoint.weights_are_kept and scheme.activations is None:
        errors = dict.fromkeys(expected, OutputError(0.0, 0.0, 0.0))  # Weights and inputs are the same: nothing to measure.
    else:
        errors = output_errors(model, {**multiplied, **left_out}, held_out, _input_transforms(checkpoint, originals))
    _warn_of_offsets(errors)
    _warn_of_first_tokens(model, errors)
    squares = {name: _squares(original, {**dequantized, **left_out}.get(name)) for name, original in expected.items()}
    return Quantization(
        modules_quantized=sorted({*dequantized, *checkpoint.bits_outside}),
        modules_skipped=_skipped(model, checkpoint, whole_model),
        parameter_share=_share(model, checkpoint, whole_model),
        bits_per_weight=_bits_per_weight(model, checkpoint, stored_bits),
        relative_error=root_ratio(*(sum(squares[name][i] for name in dequantized) for i in (0, 1))),
        group_sizes=_group_sizes(checkpoint.weights),
        other_tensors_rounded=rounded,
        layers={
            name: LayerError(
                weight_error=root_ratio(*squares[name]),
                output_error=errors[name].whole,
                centred_error=errors[name].centred,
                first_token_error=errors[name].first_token,
                **_bits_of_layer(checkpoint.weights.get(name), originals[name]),
            )
            for name in expected
        },
        **prove_inference(model, checkpoint, held_out, rotated),
    )


def _warn_of_offsets(errors: Mapping[str, OutputError]) -> None:
    """Warn if most of the layers' output error is an offset that every token shares."""
    shared = [name for name, error in errors.items() if error.whole and error.centred**2 < error.whole**2 / 2]
    if len(shared) > len(errors) / 2:
        log.warning(
            "In %d of %d layers most of the output error is one offset for every token: output_error in quantization.json "
            "does not tell what is lost there (docs/layer_errors.md); centred_error is the rest",
            len(shared),
            len(errors),
        )


def _warn_of_first_tokens(model: nn.Module, errors: Mapping[str, OutputError]) -> None:
    """Warn if more than half of the blocks have a layer that rounds a text's first token far worse than the other tokens."""
    ratios = {name: error.first_token / error.whole for name, error in errors.items() if error.first_token and error.whole}
    worse = [name for name, ratio in ratios.items() if ratio > FIRST_TOKEN_RATIO]
    prefix, blocks = find_blocks(model)
    affected = {name.removeprefix(f"{prefix}.").partition(".")[0] for name in worse}
    if len(affected) > len(blocks) / 2:
        worst = max(worse, key=lambda name: ratios[name])
        log.warning(
            "In %d of %d blocks a text's first token has more than %d times output_error in some layer (%.1f times in %s). "
            "Attention reads that token most, so the loss can be larger than output_error in quantization.json tells "
            "(docs/layer_errors.md); first_token_error is this token's",
            len(affected),
            len(blocks),
            FIRST_TOKEN_RATIO,
            ratios[worst],
            worst,
        )


def _reassembled(original: torch.Tensor, layer: str, scheme: InferenceScheme) -> torch.Tensor:
    """Return the matrix that a layer's quantized weight stands for."""
    reassembly = scheme.reassembly_of(layer)
    return original if reassembly is None else reassembly.weight(original)


def _rounded_others(model: nn.Module, others: Matrices) -> list[str]:
    """Return the names of the other tensors that differ from the model's. Raises UserError for NaN and infinities."""
    if broken := [name for name, tensor in others.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise UserError(f"{', '.join(broken)}: NaN or infinite after quantization. No score is taken from such a model.")
    full = model.state_dict()
    return sorted(
        name for name, tensor in others.items() if name in full and not torch.equal(full[name].cpu().float(), tensor.float())
    )


def _any_changed(originals: Matrices, dequantized: Matrices) -> bool:
    return any(not torch.equal(dequantized[name], originals[name].float()) for name in dequantized)


def _left_out(model: nn.Module, checkpoint: CheckpointContents) -> dict[str, torch.Tensor]:
    """Return the matrices of the blocks' layers that are not quantized; a checkpoint may hold them in another type."""
    layers, others = block_linears(model), checkpoint.others
    return {
        name: as_stored(layer, others[f"{name}.weight"]).float() if f"{name}.weight" in others else matrix(layer).float()
        for name, layer in layers.items()
        if name in checkpoint.unquantized
    }


def _check_quantized(originals: Matrices, dequantized: Matrices, checkpoint: CheckpointContents, may_stay: bool) -> None:
    """Raise UserError if a layer is not quantized.

    An unchanged layer is proved to be quantized if it was read back as codes, because then it is on their grid, or if all its
    weights are equal, because then nothing can move.
    """
    same_shape = {name: weight for name, weight in dequantized.items() if weight.shape == originals[name].shape}
    unchanged = [name for name, weight in same_shape.items() if torch.equal(weight, originals[name].float())]
    no_proof = [name for name in unchanged if not (_is_constant(originals[name]) or checkpoint.weights[name].is_coded)]
    zero = [name for name in same_shape if name not in unchanged and not originals[name].any()]
    problems = {
        "were not quantized": [name for name in originals if name not in dequantized and name not in checkpoint.unquantized],
        "hold NaN or infinite weights": [name for name, weight in dequantized.items() if not weight.isfinite().all()],
        "have another shape": [name for name in dequantized if name not in same_shape],
        "are unchanged": [] if may_stay else no_proof,
        "are zero in the model, but not after quantization": zero,
    }
    lines = [f"{len(names)} of {len(originals)} layers {what}: {', '.join(names)}" for what, names in problems.items() if names]
    if lines:
        raise UserError("The quantizer did not do its work. " + ". ".join(lines) + ". No score is taken from such a model.")
    if unchanged and not may_stay:
        log.warning(
            "%d of %d layers are unchanged, because their weights are on the quantizer's grid already: %s%s",
            len(unchanged),
            len(originals),
            ", ".join(unchanged[:5]),
            " …" if len(unchanged) > 5 else "",
        )


def _is_constant(matrix: torch.Tensor) -> bool:
    return bool((matrix == matrix[0, 0]).all())


def _input_transforms(checkpoint: CheckpointContents, originals: Matrices) -> dict[str, InputTransform]:
    """Return what is done to layers' inputs where they are rounded, besides divisions."""
    scheme = checkpoint.scheme
    if scheme.activations is None:
        return {}
    factors = scheme.input_factors(checkpoint.weights)
    return {
        name: InputTransform(
            factors.get(name), scheme.activations, scheme.static_ranges.get(name), None, scheme.reassembly_of(name)
        )
        for name in originals
    }


def _squares(original: torch.Tensor, quantized: torch.Tensor | None) -> tuple[float, float]:
    """Return ‖Ŵ − W‖² and ‖W‖²; a layer that is not given another weight keeps its own."""
    change = 0.0 if quantized is None else (quantized - original.float()).square().sum().item()
    return change, original.float().square().sum().item()


def _skipped(model: nn.Module, checkpoint: CheckpointContents, whole_model: bool) -> dict[str, str]:
    if whole_model:
        return {}
    kept = dict.fromkeys(block_linears(model), "weights are kept") if checkpoint.weights_are_kept else checkpoint.unquantized
    outside = [model.get_submodule(name).weight for name in checkpoint.bits_outside]
    others = skipped_modules(model).items()
    return {**kept, **{name: why for name, why in others if not _is_among(model.get_submodule(name).weight, outside)}}


def _is_among(weight: object, weights: Sequence[object]) -> bool:
    """Return whether a weight is one of these, or tied to one."""
    return any(weight is other for other in weights)


def _share(model: nn.Module, checkpoint: CheckpointContents, whole_model: bool) -> float:
    """Return the share of the model's parameters that was quantized."""
    if whole_model or checkpoint.weights_are_kept:
        return float(whole_model)
    return _quantized_numbers(model, checkpoint) / sum(parameter.numel() for parameter in model.parameters())


def _bits_per_weight(model: nn.Module, checkpoint: CheckpointContents, stored_bits: float | None) -> float:
    if checkpoint.weights_are_kept:
        return stored_bits or 8 * matrix(next(iter(block_linears(model).values()))).element_size()
    bits = sum(weight.storage_bits for weight in checkpoint.weights.values()) + sum(checkpoint.bits_outside.values())
    return bits / _quantized_numbers(model, checkpoint)


def _bits_of_layer(weight: Weight | None, original: torch.Tensor) -> dict[str, float]:
    return {} if weight is None else {"bits_per_weight": weight.storage_bits / original.numel()}


def _quantized_numbers(model: nn.Module, checkpoint: CheckpointContents) -> int:
    """Return how many weights are quantized, inside the blocks and outside."""
    return sum(matrix(model.get_submodule(name)).numel() for name in (*checkpoint.weights, *checkpoint.bits_outside))


def _group_sizes(weights: Mapping[str, Weight]) -> dict[str, int]:
    """Return how many weights share a scale → in how many layers; a shorter last group makes `128 and 64`."""
    layers: dict[str, int] = {}
    for weight in weights.values():
        if sizes := weight.group_sizes():
            key = " and ".join(str(size) for size in sorted(sizes, reverse=True))
            layers[key] = layers.get(key, 0) + 1
    return layers
