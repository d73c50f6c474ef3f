"""The layout of bitsandbytes.

4 bits: weight (out·in/2, 1) uint8, the first of two codes in the upper half; weight.absmax, weight.quant_map (the codebook),
weight.quant_state.bitsandbytes__<type> (JSON), and weight.nested_* where absmax is quantized too. 8 bits: weight (out, in)
int8 and SCB (out,), the largest magnitude of each row.
"""

from __future__ import annotations

import json

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.weights.formats import CodebookWeight, IntegerWeight, Weight


def take(tensors: dict[str, torch.Tensor]) -> dict[str, Weight]:
    blockwise = [key.removesuffix(".weight.absmax") for key in tensors if key.endswith(".weight.absmax")]
    rowwise = [key.removesuffix(".SCB") for key in tensors if key.endswith(".SCB")]
    return {name: _blockwise(name, tensors) for name in blockwise} | {name: _rowwise(name, tensors) for name in rowwise}


def _blockwise(name: str, tensors: dict[str, torch.Tensor]) -> CodebookWeight:
    inside = f"{name}.weight."
    part = {key.removeprefix(inside): tensors.pop(key) for key in list(tensors) if key.startswith(inside)}
    (state,) = (json.loads(bytes(value.tolist())) for key, value in part.items() if key.startswith("quant_state."))
    pairs = tensors.pop(f"{name}.weight").contiguous().view(torch.uint8).flatten()
    codes = torch.stack([pairs >> 4, pairs & 15], 1).flatten()
    out, width = state["shape"]
    absmax = part["absmax"]
    if "nested_absmax" in part:
        absmax = CodebookWeight(8, absmax, part["nested_quant_map"], part["nested_absmax"], state["nested_blocksize"])
    return CodebookWeight(
        bits=4,
        codes=codes[: out * width].view(out, width),
        codebook=part["quant_map"],
        absmax=absmax if isinstance(absmax, CodebookWeight) else absmax.float(),
        block_size=state["blocksize"],
        offset=state.get("nested_offset", 0.0),
    )


def _rowwise(name: str, tensors: dict[str, torch.Tensor]) -> IntegerWeight:
    if tensors.pop(f"{name}.weight_format", torch.tensor(0)).item() != 0:
        raise UserError(f"{name} is stored in the tiles of one kind of GPU; of bitsandbytes' 8 bits, plain rows are read.")
    return from_rows(tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.SCB"))


def from_rows(weight: torch.Tensor, absmax: torch.Tensor) -> IntegerWeight:
    """Signed integers (out, in) int8, of which ±127 stands for ±absmax (out,) of their row."""
    scales = absmax.float()[:, None] / 127
    zeros = torch.full_like(scales, 128, dtype=torch.int32)
    group_of = torch.zeros(weight.shape[1], dtype=torch.int64)
    return IntegerWeight(8, weight.to(torch.int32) + 128, scales, zeros, group_of)


def parts(weight: CodebookWeight) -> dict[str, torch.Tensor]:
    """The tensors of a 4-bit weight, by what their names add to the layer's."""
    kind = "nf4" if weight.codebook[0] == -1 else "fp4"  # whose first code is 0
    codes = torch.nn.functional.pad(weight.codes.flatten(), (0, weight.codes.numel() % 2)).view(-1, 2)
    state = {"quant_type": kind, "blocksize": weight.block_size, "dtype": "float32", "shape": list(weight.codes.shape)}
    found = {"weight": (codes[:, :1] << 4) | codes[:, 1:], "weight.quant_map": weight.codebook, "weight.absmax": weight.absmax}
    if isinstance(nested := weight.absmax, CodebookWeight):
        state |= {"nested_blocksize": nested.block_size, "nested_dtype": "float32", "nested_offset": weight.offset}
        found |= {"weight.absmax": nested.codes, "weight.nested_absmax": nested.absmax}
        found["weight.nested_quant_map"] = nested.codebook
    found[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return found
