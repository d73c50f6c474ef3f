"""The proof that a quantizer changed the weights: what changed, by how much, and what it costs in bits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.models.offloading import weights_in_memory
from bitsure.models.size import parameters_of
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.proof.inference_changes import prove_inference
from bitsure.quantize.proof.kept_function import apply_transforms
from bitsure.quantize.proof.layer_changes import LayerChange, layer_changes, left_out, reassembled
from bitsure.quantize.proof.output_errors import OutputError, output_errors, root_ratio
from bitsure.quantize.walk.targets import block_linears, find_blocks, matrix, parameter, skipped_modules
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
    scheme, parameters = checkpoint.scheme, parameters_of(model)
    rotated = apply_transforms(model, scheme, held_out) if scheme.divisions or scheme.rotations else None
    changes = layer_changes(model, checkpoint)
    rounded = _rounded_others(model, checkpoint.others)
    quantized = [name for name in checkpoint.weights if name in changes]
    if not checkpoint.weights_are_kept:
        may_stay = whole_model and (bool(rounded) or any(not changes[name].is_unchanged for name in quantized))
        _check_quantized(changes, checkpoint, may_stay)
    if checkpoint.weights_are_kept and scheme.activations is None:
        errors = dict.fromkeys(changes, OutputError(0.0, 0.0, 0.0))  # Weights and inputs are the same: nothing to measure.
    else:
        weight_now = partial(_weight_now, checkpoint)
        errors = output_errors(model, weight_now, held_out, _input_transforms(checkpoint, changes))
    _warn_of_offsets(errors)
    _warn_of_first_tokens(model, errors)
    return Quantization(
        modules_quantized=sorted({*quantized, *checkpoint.bits_outside}),
        modules_skipped=_skipped(model, checkpoint, whole_model),
        parameter_share=_share(model, checkpoint, whole_model),
        **({"parameters": now} if (now := parameters_of(model)) != parameters else {}),
        bits_per_weight=_bits_per_weight(model, checkpoint, changes, stored_bits),
        relative_error=root_ratio(*(sum(changes[name].squares[i] for name in quantized) for i in (0, 1))),
        group_sizes=_group_sizes(changes[name] for name in quantized),
        other_tensors_rounded=rounded,
        layers={
            name: LayerError(
                weight_error=root_ratio(*change.squares),
                output_error=errors[name].whole,
                centred_error=errors[name].centred,
                first_token_error=errors[name].first_token,
                **({"bits_per_weight": change.bits / change.numbers} if name in checkpoint.weights else {}),
            )
            for name, change in changes.items()
        },
        **prove_inference(model, checkpoint, held_out, rotated),
    )


def _weight_now(checkpoint: CheckpointContents, name: str, layer: nn.Module) -> torch.Tensor:
    """Return the matrix that a layer multiplies by in the quantized model, (out, in)."""
    if name in checkpoint.weights:
        return checkpoint.scheme.layer_matrix(checkpoint.weights[name])
    if name in checkpoint.unquantized:
        return left_out(name, layer, checkpoint)
    return reassembled(matrix(layer), name, checkpoint.scheme)


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


def _rounded_others(model: nn.Module, others: Matrices) -> list[str]:
    """Return the names of the other tensors that differ from the model's. Raises UserError for NaN and infinities."""
    if broken := [name for name, tensor in others.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise UserError(f"{', '.join(broken)}: NaN or infinite after quantization. No score is taken from such a model.")
    names = model.state_dict().keys()
    return sorted(name for name, tensor in others.items() if name in names and not _is_equal(model, name, tensor))


def _is_equal(model: nn.Module, name: str, tensor: torch.Tensor) -> bool:
    """Return whether a tensor of a model, which may be on disk, has these values."""
    place, _, own = name.rpartition(".")
    module = model.get_submodule(place)
    with weights_in_memory(module):
        return torch.equal(parameter(module, own).cpu().float(), tensor.float())


def _check_quantized(changes: Mapping[str, LayerChange], checkpoint: CheckpointContents, may_stay: bool) -> None:
    """Raise UserError if a layer is not quantized.

    An unchanged layer is proved to be quantized if it was read back as codes, because then it is on their grid, or if all its
    weights are equal, because then nothing can move.
    """
    quantized = {name: changes[name] for name in checkpoint.weights if name in changes}
    missing = [name for name, change in changes.items() if not change.is_quantized and name not in checkpoint.unquantized]
    problems = {
        "were not quantized": missing,
        "hold NaN or infinite weights": [name for name, change in quantized.items() if not change.is_finite],
        "have another shape": [name for name, change in quantized.items() if not change.has_shape],
        "are unchanged": [] if may_stay else [name for name, change in quantized.items() if not change.is_proved],
        "are zero in the model, but not after quantization": [name for name, change in quantized.items() if change.was_zero],
    }
    lines = [f"{len(names)} of {len(changes)} layers {what}: {', '.join(names)}" for what, names in problems.items() if names]
    if lines:
        raise UserError("The quantizer did not do its work. " + ". ".join(lines) + ". No score is taken from such a model.")
    unchanged = [name for name, change in quantized.items() if change.is_unchanged]
    if unchanged and not may_stay:
        log.warning(
            "%d of %d layers are unchanged, because their weights are on the quantizer's grid already: %s%s",
            len(unchanged),
            len(changes),
            ", ".join(unchanged[:5]),
            " …" if len(unchanged) > 5 else "",
        )


def _input_transforms(checkpoint: CheckpointContents, layers: Iterable[str]) -> dict[str, InputTransform]:
    """Return what is done to layers' inputs where they are rounded, besides divisions."""
    scheme = checkpoint.scheme
    if scheme.activations is None:
        return {}
    factors = scheme.input_factors(checkpoint.weights)
    return {
        name: InputTransform(
            factors.get(name), scheme.activations, scheme.static_ranges.get(name), None, scheme.reassembly_of(name)
        )
        for name in layers
    }


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
    return _quantized_numbers(model, checkpoint) / parameters_of(model)


def _bits_per_weight(
    model: nn.Module, checkpoint: CheckpointContents, changes: Mapping[str, LayerChange], stored_bits: float | None
) -> float:
    if checkpoint.weights_are_kept:
        return stored_bits or 8 * matrix(next(iter(block_linears(model).values()))).element_size()
    bits = sum(changes[name].bits for name in checkpoint.weights) + sum(checkpoint.bits_outside.values())
    return bits / _quantized_numbers(model, checkpoint)


def _quantized_numbers(model: nn.Module, checkpoint: CheckpointContents) -> int:
    """Return how many weights are quantized, inside the blocks and outside."""
    return sum(matrix(model.get_submodule(name)).numel() for name in (*checkpoint.weights, *checkpoint.bits_outside))


def _group_sizes(changes: Iterable[LayerChange]) -> dict[str, int]:
    """Return how many weights share a scale → in how many layers; a shorter last group makes `128 and 64`."""
    layers: dict[str, int] = {}
    for change in changes:
        if change.group_sizes:
            key = " and ".join(str(size) for size in sorted(change.group_sizes, reverse=True))
            layers[key] = layers.get(key, 0) + 1
    return layers
