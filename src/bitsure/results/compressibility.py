"""compressibility.json: how far codes compress, and how long models take to load."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from bitsure.results.result import Result

AS_STORED = "as_stored"
CODER_LABELS = {
    "zstd_packed": "zstd of the packed words",
    "zstd_bytes": "zstd of one byte per code",
    "range_coder": "range coder",
}
"""The coders that a result file names, and what a reader is told."""


class EntropyLevel(Result):
    """Entropy of codes when each unit (tensor, channel, group, token) has a code book of its own."""

    value: float
    """Mean entropy, bits a code."""
    corrected: float
    """The same with Miller and Madow's correction for few codes, bits a code."""
    bound: float | None
    """Bits ÷ entropy: how many times smaller codes can be at most; null where the entropy is 0."""
    n: int
    """How many units there are."""


class CoderResult(Result):
    """The codes after a real coder."""

    bits_per_weight: float
    """Bits a weight after coding, scales and zero points counted."""
    ratio: float
    """Stored size ÷ coded size."""
    seconds_to_decode: float
    """Seconds to decode all of it on one thread here."""
    decoded_mb_per_second: float
    """Stored megabytes (10⁶ bytes) decoded a second."""


class ScaleBits(Result):
    """Bits a weight of scales and zero points."""

    stored: float
    """As stored."""
    coded: float
    """After coding."""


class TensorCodes(Result):
    """One tensor's codes."""

    bits: int | float
    """Bits of a code as stored."""
    n: int
    """Codes in the tensor."""
    n_measured: int
    """Codes that were measured."""
    entropy: dict[str, float]
    """Level → entropy, bits a code."""
    bits_per_code: dict[str, float]
    """Coder → bits a code."""


class Codes(Result):
    """Codes of all tensors together, and of each."""

    n: int
    """Codes."""
    n_measured: int
    """Codes that were measured."""
    weights: int
    """Weights (or activations) that the codes stand for."""
    bits: float
    """Mean bits of a code as stored."""
    entropy: dict[str, EntropyLevel]
    """Level → entropy."""
    bits_per_weight: float
    """Bits a weight as stored, scales and zero points counted."""
    beside_bits_per_weight: ScaleBits
    """Of that, scales and zero points."""
    coders: dict[str, CoderResult]
    """Coder → what it reaches."""
    best: str
    """The coder that makes them smallest, or `as_stored`."""
    bits_per_weight_coded: float
    """Bits a weight with the best coder."""
    tensors: dict[str, TensorCodes]
    """Tensor → its codes."""
    format: str | None = None
    """Activations: the number format of the codes."""
    tokens: int | None = None
    """Activations: tokens of text that they were measured on."""
    text: str | None = None
    """Activations: the text's name."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if "tensor" not in self.entropy or not CODER_LABELS.keys() <= self.coders.keys():
            raise ValueError(f"the entropy per tensor, or one of {', '.join(CODER_LABELS)} is missing")
        if self.best not in (AS_STORED, *CODER_LABELS):
            raise ValueError(f"best={self.best} is no coder")
        return self


class LoadTime(Result):
    """Loading the quantized layers with one coder."""

    mb: float
    """Megabytes (10⁶ bytes) to read."""
    read_seconds: float
    """Seconds to read them."""
    decode_seconds: float
    """Seconds to decode them on one thread."""
    faster_below_mb_per_second: float | None = None
    """The bandwidth below which this coder loads sooner than what is stored; null if it never does."""
    seconds: float
    """Reading and decoding, one after the other."""


class Loading(Result):
    """The time to load the quantized layers."""

    bandwidth_mb_per_second: float
    """`compress.bandwidth`, megabytes a second."""
    by_coder: dict[str, LoadTime]
    """Coder → its times."""

    @model_validator(mode="after")
    def _has_every_coder(self) -> Self:
        if self.by_coder.keys() != {AS_STORED, *CODER_LABELS}:
            raise ValueError(f"the coders are {', '.join((AS_STORED, *CODER_LABELS))}")
        return self


class Compressibility(Result):
    """compressibility.json."""

    weights: Codes | None
    """Null where weights are kept."""
    activations: Codes | None
    """Null where they were not measured."""
    loading: Loading | None
    """Null where weights are kept."""
