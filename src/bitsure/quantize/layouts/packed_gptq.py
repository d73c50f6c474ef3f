"""The packed layout of GPTQ: qweight (in·bits/32, out), qzeros (groups, out·bits/32), scales (groups, out), g_idx (in)."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.layout import ExportLayout, dynamic_settings, layer_settings, layers_with
from bitsure.quantize.weights import IntegerWeight

EXPORTED_BITS = (2, 3, 4, 8)  # those that transformers' GPTQConfig takes
EXPORTED_GROUPS = (-1, 16, 32, 64, 128, 256, 512, 1024)  # those of gptqmodel's kernels
WORD = 32  # rows and columns come in whole words, with every number of bits


class GptqLayout(ExportLayout):
    """GPTQ's: zero points are stored less one in the format `gptq`, the default, and as they are in `gptq_v2`."""

    quant_method = "gptq"
    only_linear = False
    suffixes = (".qweight",)

    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> dict[str, IntegerWeight]:
        """Remove the integer weights, each with the settings that `dynamic` gives its layer; see `Layout.take`."""
        _variant(settings, where)
        return {name: _layer(name, tensors, settings, where) for name in layers_with(tensors, ".qweight")}

    def put(
        self, weights: Mapping[str, IntegerWeight], unquantized: Sequence[str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return qweight, qzeros, scales and g_idx of each layer; see `ExportLayout.put`."""
        for name, weight in weights.items():
            _check_kernels(name, weight)
        sizes = {_group_size(weight) for weight in weights.values()} - {-1}
        if len(sizes) > 1:
            raise UserError(f"its layers have groups of {_listed(sizes)}; GPTQ's layout has one size")
        bits = Counter(weight.bits for weight in weights.values()).most_common(1)[0][0]
        symmetric = all(weight.is_symmetric for weight in weights.values())
        tensors = {
            f"{name}.{part}": tensor.contiguous()
            for name, weight in weights.items()
            for part, tensor in dataclasses.replace(weight, zeros=weight.zeros - int(symmetric)).tensors().items()
        }
        return tensors, {
            "quant_method": self.quant_method,
            "bits": bits,
            "group_size": sizes.pop() if sizes else -1,
            "sym": symmetric,
            "desc_act": not all(_in_order(weight) for weight in weights.values()),
            # Programs read symmetric integers in the older format, where zero points are one less, and others in the newer one.
            "checkpoint_format": "gptq" if symmetric else "gptq_v2",
            "lm_head": False,
            "dynamic": {f"-:^{re.escape(name)}$": {} for name in unquantized}
            | {f"+:^{re.escape(name)}$": {"bits": weight.bits} for name, weight in weights.items() if weight.bits != bits},
        }

    def leaves_out(self, layer: str, settings: Mapping[str, Any]) -> bool:
        """Return whether `dynamic` leaves a layer out, or optimum's list of a block's quantized layers lacks it."""
        quantized = [name for group in settings.get("modules_in_block_to_quantize") or () for name in group]
        listed = not quantized or any(layer.endswith(f".{name}") for name in quantized)
        return dynamic_settings(layer, settings) is None or not listed


def _variant(settings: Mapping[str, Any], where: Path) -> str:
    variant = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if settings.get("is_marlin_format"):
        variant = "marlin"
    if variant not in ("gptq", "gptq_v2"):
        raise UserError(f"{where}: checkpoint_format={variant}; of GPTQ's, gptq and gptq_v2 are read.")
    return str(variant)


def _layer(name: str, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> IntegerWeight:
    own = layer_settings(name, settings)
    variant, words = _variant(own, where), tensors[f"{name}.qweight"].dtype
    if words != torch.int32:
        raise UserError(f"{where}: {name} is packed into {words}; words of torch.int32 are read.")
    weight = IntegerWeight.from_tensors(name, tensors, own)
    if variant == "gptq":
        weight = dataclasses.replace(weight, zeros=weight.zeros + 1)
        if weight.zeros.max() >= 2**weight.bits:
            raise UserError(f"{where}: {name} has zero points that the format gptq cannot hold; gptq_v2 can.")
    return weight


def _check_kernels(name: str, weight: IntegerWeight) -> None:
    """Raise UserError for a weight that the programs that load this layout have no kernel for."""
    if weight.bits not in EXPORTED_BITS:
        raise UserError(f"{name} has {weight.bits} bits; transformers loads {_listed(EXPORTED_BITS)}")
    if (size := _group_size(weight)) not in EXPORTED_GROUPS:
        raise UserError(f"{name} has groups of {size} weights; gptqmodel loads {_listed(EXPORTED_GROUPS)} (−1: a row)")
    if any(side % WORD for side in weight.codes.shape):
        raise UserError(f"{name} has {' × '.join(map(str, weight.codes.shape))} weights, which are not whole words of {WORD}")


def _group_size(weight: IntegerWeight) -> int:
    """Return the number of weights that share a scale, the last group's aside; −1: a row."""
    return weight.group_sizes()[-1] if weight.scales.shape[1] > 1 else -1


def _in_order(weight: IntegerWeight) -> bool:
    return bool((weight.group_of.diff() >= 0).all())


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
