"""AutoAWQ's `gemm` layout: qweight (in, out/8), qzeros (groups, out/8), scales (groups, out), nibbles shuffled."""

from __future__ import annotations

from pathlib import Path

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.weights.formats import IntegerWeight

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the nibble at place i of a word belongs to column ORDER[i] of its eight


def take(tensors: dict[str, torch.Tensor], settings: dict, where: Path) -> dict[str, IntegerWeight]:
    version = str(settings.get("version") or settings.get("checkpoint_format") or settings.get("format") or "gemm").lower()
    bits = settings.get("bits", settings.get("w_bit"))
    if version != "gemm" or bits != 4:
        raise UserError(f"{where}: version={version}, bits={bits}; of AWQ's, gemm in 4 bits is read.")
    names = [key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")]
    return {name: _layer(name, tensors, where) for name in names}


def _layer(name: str, tensors: dict[str, torch.Tensor], where: Path) -> IntegerWeight:
    words, zeros, scales = (tensors.pop(f"{name}.{part}") for part in ("qweight", "qzeros", "scales"))
    codes = unshuffle(words)
    if codes.shape[1] != scales.shape[1] or len(codes) % len(scales):
        raise UserError(f"{where}: {name} has codes {tuple(codes.shape)} and scales {tuple(scales.shape)}, which do not fit.")
    return IntegerWeight(
        bits=4,
        codes=codes.T.contiguous(),
        scales=scales.T.contiguous(),
        zeros=unshuffle(zeros).T.contiguous(),
        group_of=torch.arange(len(codes)) // (len(codes) // len(scales)),
    )


def unshuffle(words: torch.Tensor) -> torch.Tensor:
    """The 4-bit integers of words (n, columns / 8) int32: (n, columns) int32."""
    nibbles = (words[..., None] >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15
    columns = torch.empty_like(nibbles)
    columns[..., list(ORDER)] = nibbles
    return columns.flatten(1)
