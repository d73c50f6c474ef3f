"""Checkpoints as AutoAWQ writes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from bitsure.models.load import load_model
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears
from bitsure.quantize.weights import IntegerWeight


def awq_pack(codes: torch.Tensor) -> torch.Tensor:
    """AutoAWQ's own loop (WQLinear_GEMM.from_linear), codes (n, columns)."""
    words = torch.zeros(len(codes), codes.shape[1] // 8, dtype=torch.int32)
    for column in range(words.shape[1]):
        for i, place in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
            words[:, column] |= codes[:, column * 8 + place].to(torch.int32) << (i * 4)
    return words


def save_awq(model: Path, out: Path, group_size: int) -> dict[str, IntegerWeight]:
    """Write a model rounded to 4 bits, asymmetric, into a new directory. Returns layer → its weight."""
    parent, _ = load_model(model, "float32")
    tensors = {name: tensor for name, tensor in parent.state_dict().items() if name != "lm_head.weight"}
    rounded = {
        name: round_to_nearest(linear.weight, Rtn(4, group_size, False)) for name, linear in block_linears(parent).items()
    }
    for name, weight in rounded.items():
        tensors |= {f"{name}.qweight": awq_pack(weight.codes.T), f"{name}.qzeros": awq_pack(weight.zeros.T)}
        tensors[f"{name}.scales"] = weight.scales.T.contiguous()
        del tensors[f"{name}.weight"]
    out.mkdir()
    save_file(tensors, out / "model.safetensors")
    settings = {"quant_method": "awq", "bits": 4, "group_size": group_size, "version": "gemm", "zero_point": True}
    config = json.loads((model / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return rounded
