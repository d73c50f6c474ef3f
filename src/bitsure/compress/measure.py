"""How far a model's codes compress: entropies, and what real coders make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.compress import coders
from bitsure.compress.codes import CodedTensor, of_activations, of_weight
from bitsure.compress.entropy import entropy
from bitsure.config.number_formats import Activations
from bitsure.results.compressibility import AS_STORED

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.inference.hooks import InputTransform
    from bitsure.quantize.walk.blocks import Feed

UNROUNDED = Activations(8, symmetric=True)  # what activations are measured in that a quantizer leaves as they are


def weights(checkpoint: Path, codes: int, seed: int) -> dict | None:
    """The `summary` of a checkpoint's quantized weights, read one at a time; None if none of them is made of codes.

    codes: how many are measured at most (of a larger model, rows of each layer drawn by `seed`).
    """
    from bitsure.quantize.checkpoint import storage as checkpoints

    total, each = checkpoints.one_by_one(checkpoint)
    coded = ((name, of_weight(weight, codes // max(1, total), seed)) for name, weight in each)
    return summary((name, one) for name, one in coded if one is not None)


def activations(
    model: nn.Module, changes: Mapping[nn.Module, InputTransform], windows: torch.Tensor, codes: int, seed: int
) -> dict | None:
    """The `summary` of what the linear layers in the model's blocks are given on windows (n, seqlen) of token ids.

    As codes of the format that they are rounded to while the model runs, from what they are before that; else of int8 with one
    scale a token. Layers that read the same input in the same format count once, under the name of the first.
    """
    from bitsure.quantize.inference.hooks import InputTransform
    from bitsure.quantize.walk.blocks import walk
    from bitsure.quantize.walk.targets import block_linears, linears

    most = codes // len(block_linears(model))

    def coded(layer: nn.Module, states: torch.Tensor) -> CodedTensor:
        change = changes.get(layer, InputTransform())
        numbers = change.numbers or UNROUNDED
        return of_activations(replace(change, numbers=None)(states), numbers, change.static_range, most, seed)

    return summary(
        (f"{prefix}.{name}", coded(layers[name], states))
        for prefix, block, feed in walk(model, windows)
        for layers in [linears(block)]
        for name, states in _inputs(layers, changes, feed).items()
    )


def _inputs(layers: dict[str, nn.Module], changes: Mapping[nn.Module, InputTransform], feed: Feed) -> dict[str, torch.Tensor]:
    """What a block's layers are given, before it is changed, (tokens, width) each."""
    import torch

    kept: dict[str, list[torch.Tensor]] = {}
    seen: list[tuple[torch.Tensor, InputTransform | None]] = []

    def watch(name: str):
        def hook(layer, inputs):
            x, change = inputs[0], changes.get(layer)
            if not any(x is states and change is how for states, how in seen):
                seen.append((x, change))
                kept.setdefault(name, []).append(x)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name), prepend=True) for name, layer in layers.items()]
    try:
        feed()
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat([states.flatten(0, -2) for states in batches]) for name, batches in kept.items()}


def summary(tensors: Iterable[tuple[str, CodedTensor]]) -> dict | None:
    """What is known of all tensors together, and of each; None of none.

    Sizes are in bits per weight (or number), scales and zero points counted; entropies are in bits a code and the mean over
    tensors, weighted by their codes. A tensor of which some rows were measured is taken to be like these rows.
    """
    measured = {name: _tensor(one) for name, one in tensors}
    if not measured:
        return None
    each = measured.values()
    total = {key: sum(one[key] for one in each) for key in ("n", "weights", "n_measured", "stored_bits", "beside_bits")}
    over_codes = lambda values: sum(v * one["n"] for v, one in zip(values, each, strict=True)) / total["n"]  # noqa: E731
    bits = over_codes([one["bits"] for one in each])
    beside = {name: sum(one["beside_zstd"][name] for one in each) for name in ("bits", "seconds")}
    if beside["bits"] >= total["beside_bits"]:  # scales that zstd finds nothing in stay as they are
        beside = {"bits": total["beside_bits"], "seconds": 0.0}
    found = {}
    for coder in coders.NAMES:
        coded = sum(one["coded"][coder]["bits"] for one in each) + beside["bits"]
        seconds = sum(one["coded"][coder]["seconds"] for one in each) + beside["seconds"]
        found[coder] = {
            "bits_per_weight": coded / total["weights"],
            "ratio": total["stored_bits"] / coded,
            "seconds_to_decode": seconds,
            "decoded_mb_per_second": total["stored_bits"] / 8e6 / seconds,
        }
    stored = total["stored_bits"] / total["weights"]
    best = min(found, key=lambda coder: found[coder]["bits_per_weight"])
    if found[best]["bits_per_weight"] >= stored:
        best = AS_STORED
    return {
        "n": total["n"],
        "n_measured": total["n_measured"],
        "weights": total["weights"],
        "bits": bits,
        "entropy": _entropies(measured, bits, over_codes),
        "bits_per_weight": stored,
        "beside_bits_per_weight": {
            "stored": total["beside_bits"] / total["weights"],
            "coded": beside["bits"] / total["weights"],
        },
        "coders": found,
        "best": best,
        "bits_per_weight_coded": stored if best == AS_STORED else found[best]["bits_per_weight"],
        "tensors": {name: _shown(one) for name, one in measured.items()},
    }


def _entropies(measured: dict[str, dict], bits: float, over_codes) -> dict[str, dict]:
    """By level (tensor, channel, group or token): mean, bound on the ratio (None where the entropy is 0), number of units."""
    levels = next(iter(measured.values()))["entropy"]
    found = {}
    for level in levels:
        ones = [one["entropy"][level] for one in measured.values()]
        value = over_codes([one.value for one in ones])
        found[level] = {
            "value": value,
            "corrected": over_codes([one.corrected for one in ones]),
            "bound": bits / value if value else None,
            "n": sum(one.units for one in ones),
        }
    return found


def _tensor(one: CodedTensor) -> dict:
    """Entropies and sizes of one tensor; sizes and times of some rows are scaled up to all."""
    units = {"tensor": None} | one.units
    sizes = coders.sizes(one.codes, one.bits)
    beside = coders.zstd(one.statistics)
    return {
        "bits": one.bits,
        "n": round(one.codes.size / one.share),
        "n_measured": one.codes.size,
        "weights": one.weights,
        "stored_bits": one.stored_bits,
        "beside_bits": one.statistics_bits,
        "beside_zstd": {"bits": beside.bits, "seconds": beside.seconds},
        "entropy": {level: entropy(one.codes, one.bits, ids) for level, ids in units.items()},
        "coded": {name: {"bits": s.bits / one.share, "seconds": s.seconds / one.share} for name, s in sizes.items()},
    }


def _shown(one: dict) -> dict:
    """A tensor's part of the summary; its coders' sizes are of the codes alone."""
    return {
        "bits": one["bits"],
        "n": one["n"],
        "n_measured": one["n_measured"],
        "entropy": {level: found.value for level, found in one["entropy"].items()},
        "bits_per_code": {coder: found["bits"] / one["n"] for coder, found in one["coded"].items()},
    }
