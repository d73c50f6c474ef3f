"""The integers that a quantized tensor is made of, and what must lie beside them to make numbers of them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from bitsure.quantize.formats import CodebookWeight, Weight

ACTIVATION_BITS = 8


@dataclass(frozen=True)
class Coded:
    """Codes of a tensor, or of some of its rows."""

    bits: int
    codes: np.ndarray  # (rows, columns) uint8 in [0, 2**bits)
    share: float  # of the tensor's codes that these are
    weights: int  # numbers that the whole tensor stands for; fewer than its codes where a group is padded
    units: dict[str, np.ndarray]  # level → which channel, group or token a code belongs to, integers that broadcast to codes
    beside: bytes  # scales, zero points and the like of the whole tensor
    stored_bits: float  # of the whole tensor: packed codes and what is beside them

    @property
    def beside_bits(self) -> float:
        """What the scales and the like take as they are stored, where integer zero points have as few bits as a code."""
        return self.stored_bits - self.codes.size / self.share * self.bits


def of_weight(weight: Weight, most: int, seed: int) -> Coded | None:
    """A weight's codes with units `channel` (a row: what one output is made from) and `group` (what shares a scale).

    most: of more codes than these, whole rows are drawn by `seed`. None for a weight that is not made of codes.
    """
    from bitsure.quantize.formats import CodebookWeight, DenseWeight

    if isinstance(weight, DenseWeight):
        return None
    out, stored = weight.codes.shape
    rows = draw_rows(out, stored, most, seed)
    groups = _groups_of_codebook if isinstance(weight, CodebookWeight) else _groups_of_rows
    return Coded(
        bits=weight.bits,
        codes=weight.codes.numpy()[rows].astype(np.uint8),
        share=len(rows) / out,
        weights=out * (getattr(weight, "width", None) or stored),
        units={"channel": np.arange(len(rows))[:, None], "group": groups(weight, rows)},
        beside=b"".join(map(_bytes, _beside(weight))),
        stored_bits=weight.storage_bits,
    )


def of_activations(states: torch.Tensor, most: int, seed: int) -> Coded:
    """Inputs of a layer (tokens, width) as int8 with one float16 scale a token, round(127 x / max|x|) + 128: what SmoothQuant
    (Xiao et al. 2023) makes of activations while a model runs. Units `channel` (a column) and `token`.
    """
    scales = states.abs().amax(1, keepdim=True).float().clamp(min=2**-126) / 127
    codes = ((states.float() / scales).round() + 2 ** (ACTIVATION_BITS - 1)).cpu().numpy().astype(np.uint8)
    tokens, width = codes.shape
    rows = draw_rows(tokens, width, most, seed)
    beside = _bytes(scales.half())
    return Coded(
        bits=ACTIVATION_BITS,
        codes=codes[rows],
        share=len(rows) / tokens,
        weights=codes.size,
        units={"channel": np.arange(width)[None], "token": np.arange(len(rows))[:, None]},
        beside=beside,
        stored_bits=codes.size * ACTIVATION_BITS + len(beside) * 8,
    )


def draw_rows(rows: int, columns: int, most: int, seed: int) -> np.ndarray:
    """All rows, or as many as hold `most` numbers (at least one), drawn by `seed`, in order."""
    fitting = max(1, most // columns)
    if fitting >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, fitting, replace=False))


def _groups_of_rows(weight: Weight, rows: np.ndarray) -> np.ndarray:
    if len(weight.scales) != len(weight.codes):  # one scale for the whole tensor
        return np.zeros((1, 1), dtype=np.int64)
    return np.arange(len(rows))[:, None] * weight.scales.shape[1] + weight.group_of.numpy()[None]


def _groups_of_codebook(weight: CodebookWeight, rows: np.ndarray) -> np.ndarray:
    width = weight.codes.shape[1]
    blocks = (rows[:, None] * width + np.arange(width)) // weight.block_size
    return np.unique(blocks, return_inverse=True)[1].reshape(blocks.shape)


def _beside(weight: Weight) -> list[torch.Tensor]:
    import torch

    from bitsure.quantize.formats import CodebookWeight

    if isinstance(weight, CodebookWeight):
        nested = isinstance(weight.absmax, CodebookWeight)
        return [weight.absmax.codes, *_beside(weight.absmax), torch.tensor(weight.offset)] if nested else [weight.absmax]
    zeros = getattr(weight, "zeros", None)  # which not every format has
    if zeros is not None and not zeros.is_floating_point():
        zeros = zeros.to(torch.int16)
    return [part for part in (weight.scales, zeros, weight.input_scales) if part is not None]


def _bytes(tensor: torch.Tensor) -> bytes:
    import torch

    return tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes()
