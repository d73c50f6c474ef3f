"""Weights through bitsandbytes's own functions: NF4, FP4 and the rows of LLM.int8()."""

from __future__ import annotations

import torch
from torch import nn

from bitsure.config.other_quantizers import Bnb
from bitsure.quantize.layouts import bitsandbytes as layout
from bitsure.quantize.walk.targets import block_linears, matrix
from bitsure.quantize.weights.formats import Weight

BLOCK = 64  # as in its own layers


def quantize(model: nn.Module, quant: Bnb) -> dict[str, Weight]:
    """The model's layers as bitsandbytes rounds them, by name."""
    return {name: quantize_weight(matrix(layer), quant) for name, layer in block_linears(model).items()}


def quantize_weight(weight: torch.Tensor, quant: Bnb) -> Weight:
    """A weight (out, in) as Linear4bit and Linear8bitLt keep it; the latter rounds it to float16 first."""
    from bitsandbytes import functional

    weight = weight.detach().contiguous()
    if quant.type == "int8":
        codes, absmax, _ = functional.int8_vectorwise_quant(weight.half())
        return layout.from_rows(codes, absmax)
    packed, state = functional.quantize_4bit(
        weight, blocksize=BLOCK, compress_statistics=quant.double_quant, quant_type=quant.type
    )
    tensors = {f"a.weight.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    return layout.take(tensors | {"a.weight": packed})["a"]
