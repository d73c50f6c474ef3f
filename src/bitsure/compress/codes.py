"""The integers that a quantized tensor is made of, and what must lie beside them to make numbers of them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitsure.config.number_formats import ELEMENTS, MX, Numbers

if TYPE_CHECKING:
    import torch

    from bitsure.quantize.weights.formats import CodebookWeight, Weight


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
    from bitsure.quantize.weights.formats import CodebookWeight, DenseWeight

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


def of_activations(states: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None, most: int, seed: int) -> Coded:
    """Inputs of a layer (tokens, width) as the codes that a format makes of them; static_range: the range of a group size of 0.

    Units `channel` (a column), `token`, and `group` where several of a token's values share a scale. Scales are stored as those
    of weights are: float16 of integers, with zero points of as many bits as a code unless symmetric; a byte for each block of
    an MX format; float32 of FP8.
    """
    import torch

    from bitsure.quantize.weights.elements import MANTISSA_BITS, encode
    from bitsure.quantize.weights.fake_quantize import on_grid

    units, scales, zeros = on_grid(states, numbers, static_range)
    (tokens, width), groups = states.shape, scales.shape[1]
    size = numbers.group_size if groups > 1 else width
    group_of = np.arange(width) // size
    beside = [scales.half()]
    if numbers.format != "int":
        codes = encode(units, ELEMENTS[numbers.format])
        beside = [(scales.view(torch.int32) >> MANTISSA_BITS).to(torch.uint8) if numbers.format in MX else scales]
    else:
        codes = units + (zeros[:, group_of] if groups > 1 else zeros)
        beside += [] if numbers.symmetric else [zeros.to(torch.int16)]
    rows = draw_rows(tokens, width, most, seed)
    found = {"channel": np.arange(width)[None], "token": np.arange(len(rows))[:, None]}
    if groups > 1:
        found["group"] = np.arange(len(rows))[:, None] * groups + group_of[None]
    of_zeros = 0 if len(beside) == 1 else zeros.numel() * numbers.bits
    return Coded(
        bits=numbers.bits,
        codes=codes.cpu().numpy()[rows].astype(np.uint8),
        share=len(rows) / tokens,
        weights=states.numel(),
        units=found,
        beside=b"".join(map(_bytes, beside)),
        stored_bits=states.numel() * numbers.bits + beside[0].numel() * beside[0].element_size() * 8 + of_zeros,
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

    from bitsure.quantize.weights.formats import CodebookWeight

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
