"""The integers that a quantized tensor is made of, and what must be stored beside them to restore its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitsure.config.number_formats import E4M3, ELEMENTS, FP8_SCALED, MX, Numbers

if TYPE_CHECKING:
    import torch

    from bitsure.quantize.weights import Weight


@dataclass(frozen=True)
class CodedTensor:
    """Codes of a tensor, or of some of its rows."""

    bits: int
    """Bits of a code."""
    codes: NDArray[np.uint8]
    """(rows, columns), in [0, 2**bits)."""
    share: float
    """The share of the tensor's codes that these are, in (0, 1]."""
    weights: int
    """Numbers that the whole tensor stands for; fewer than its codes where a group is padded."""
    units: dict[str, NDArray[np.int64]]
    """Level → the channel, group or token that a code belongs to; broadcasts to codes."""
    statistics: bytes
    """Scales, zero points and the like of the whole tensor."""
    stored_bits: float
    """Bits of the whole tensor: packed codes and statistics."""

    @property
    def statistics_bits(self) -> float:
        """Bits of the statistics as they are stored, where an integer zero point takes as many as a code."""
        return self.stored_bits - self.codes.size / self.share * self.bits


def codes_of_weight(weight: Weight, most: int, seed: int) -> CodedTensor | None:
    """Return the codes of a weight; None if it is not made of codes.

    Args:
        weight: The weight.
        most: Codes that are measured at most: of a larger weight whole rows are drawn.
        seed: The seed of that draw.

    Returns:
        Codes with the units `channel` (a row: what one output is computed from) and `group` (codes that share a scale).
    """
    parts = weight.compressible_codes()
    if parts is None:
        return None
    out, stored = parts.codes.shape
    rows = draw_rows(out, stored, most, seed)
    return CodedTensor(
        bits=parts.bits,
        codes=parts.codes.numpy()[rows].astype(np.uint8),
        share=len(rows) / out,
        weights=out * parts.width,
        units={"channel": np.arange(len(rows))[:, None], "group": parts.groups(rows)},
        statistics=b"".join(map(_bytes, parts.statistics)),
        stored_bits=weight.storage_bits,
    )


def codes_of_activations(
    states: torch.Tensor, numbers: Numbers, static_range: torch.Tensor | None, most: int, seed: int
) -> CodedTensor:
    """Return the codes that a number format makes of a layer's inputs.

    Scales are stored as those of weights are: float16 of integers, with zero points of as many bits as a code unless symmetric;
    a byte for each block of an MX format and where scales are FP8; float32 of FP8.

    Args:
        states: Shape (tokens, width).
        numbers: The number format.
        static_range: (low, high), the range of a group size of 0.
        most: Codes that are measured at most: of more, whole tokens are drawn.
        seed: The seed of that draw.

    Returns:
        Codes with the units `channel` (a column), `token`, and `group` where several of a token's values share a scale.
    """
    from bitsure.quantize.weights.fake_quantize import on_grid

    units, scales, zeros = on_grid(states, numbers, static_range)
    (tokens, width), groups = states.shape, scales.shape[1]
    size = (numbers.group_size or 1) if groups > 1 else width
    group_of = np.arange(width) // size
    if numbers.format == "int":
        codes, statistics = _integer_codes(units, scales, zeros[:, group_of] if groups > 1 else zeros, zeros, numbers)
    else:
        codes, statistics = _element_codes(units, scales, numbers)
    bits = int(numbers.levels).bit_length()
    rows = draw_rows(tokens, width, most, seed)
    levels: dict[str, NDArray[np.int64]] = {"channel": np.arange(width)[None], "token": np.arange(len(rows))[:, None]}
    if groups > 1:
        levels["group"] = np.arange(len(rows))[:, None] * groups + group_of[None]
    zero_bits = 0 if len(statistics) == 1 else zeros.numel() * bits
    return CodedTensor(
        bits=bits,
        codes=codes.cpu().numpy()[rows].astype(np.uint8),
        share=len(rows) / tokens,
        weights=states.numel(),
        units=levels,
        statistics=b"".join(map(_bytes, statistics)),
        stored_bits=states.numel() * bits + statistics[0].numel() * statistics[0].element_size() * 8 + zero_bits,
    )


def _integer_codes(
    units: torch.Tensor, scales: torch.Tensor, zeros_of_columns: torch.Tensor, zeros: torch.Tensor, numbers: Numbers
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    import torch

    statistics = [scales.half()] if numbers.symmetric else [scales.half(), zeros.to(torch.int16)]
    return units + zeros_of_columns, statistics


def _element_codes(units: torch.Tensor, scales: torch.Tensor, numbers: Numbers) -> tuple[torch.Tensor, list[torch.Tensor]]:
    import torch

    from bitsure.quantize.weights.small_floats import MANTISSA_BITS, encode, nearest

    if numbers.format in MX:
        scales = (scales.view(torch.int32) >> MANTISSA_BITS).to(torch.uint8)
    elif numbers.format in FP8_SCALED:  # the largest scale of a row is FP8's largest number
        scales = encode(nearest(scales * (E4M3.largest / scales.amax(1, keepdim=True)), E4M3), E4M3)
    return encode(units, ELEMENTS[numbers.format]), [scales]


def draw_rows(rows: int, columns: int, most: int, seed: int) -> NDArray[np.int64]:
    """Return all row numbers, or as many as hold `most` numbers (at least one), drawn by `seed`, in order."""
    fitting = max(1, most // columns)
    if fitting >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, fitting, replace=False))


def _bytes(tensor: torch.Tensor) -> bytes:
    import torch

    array: NDArray[Any] = tensor.contiguous().flatten().view(torch.uint8).cpu().numpy()
    return array.tobytes()
