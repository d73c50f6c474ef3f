"""The size of codes after real compressors, and the time that decoding takes on this machine.

zstd is pyarrow's. The range coder is constriction's (Bamler 2022); it knows how often each code occurs in a tensor, so that it
comes close to the entropy. Each runs on one thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitsure.base.errors import UserError
from bitsure.results.compressibility import CODER_LABELS

ZSTD_LEVEL = 1  # Higher levels search longer for repetitions, which codes hardly have, and are larger as often as smaller.
ZSTD_PACKED, ZSTD_BYTES, RANGE_CODER = NAMES = tuple(CODER_LABELS)
TABLE = np.uint16  # the type that the frequency of a code is stored in


@dataclass(frozen=True)
class CodedSize:
    """The result of one coder on some codes."""

    bits: int
    """Their size after coding."""
    seconds: float
    """The time to decode them."""


def sizes(codes: NDArray[np.uint8], bits: int) -> dict[str, CodedSize]:
    """Return the size with each coder.

    Args:
        codes: Shape (rows, columns), in [0, 2**bits).
        bits: Bits of a code.

    Raises:
        UserError: If decoding does not return the same codes.
    """
    return {
        ZSTD_PACKED: zstd(packed_words(codes, bits)),
        ZSTD_BYTES: zstd(codes.tobytes()),
        RANGE_CODER: range_coder(codes.ravel(), bits),
    }


def zstd(data: bytes) -> CodedSize:
    """Return the size of bytes with zstd."""
    import pyarrow as pa

    codec = pa.Codec("zstd", compression_level=ZSTD_LEVEL)
    compressed = codec.compress(data, asbytes=True)
    started = time.perf_counter()
    back = codec.decompress(compressed, len(data), asbytes=True)
    seconds = time.perf_counter() - started
    _check(back == data, "zstd")
    return CodedSize(len(compressed) * 8, seconds)


def range_coder(codes: NDArray[np.uint8], bits: int) -> CodedSize:
    """Return the size of codes (n,) with a range coder and one table of frequencies, which counts too."""
    table = frequencies(codes, bits)
    words = range_encode(codes, table)
    started = time.perf_counter()
    back = range_decode(words, table, len(codes))
    seconds = time.perf_counter() - started
    _check(np.array_equal(back, codes), "the range coder")
    return CodedSize(words.size * 32 + table.size * table.itemsize * 8, seconds)


def frequencies(codes: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """Return how often each code occurs relative to the most frequent, (2**bits,); at least 1 for one that occurs."""
    counts = np.bincount(codes, minlength=2**bits)
    largest = np.iinfo(TABLE).max
    return np.where(counts, np.maximum(1, np.round(counts / max(1, counts.max()) * largest)), 0).astype(TABLE)


def range_encode(codes: NDArray[Any], table: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """Return codes (n,) as 32-bit words."""
    import constriction

    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(codes.astype(np.int32), _model(table))
    words: NDArray[np.uint32] = encoder.get_compressed()
    return words


def range_decode(words: NDArray[np.uint32], table: NDArray[np.uint16], n: int) -> NDArray[np.int32]:
    """Return the n codes of 32-bit words."""
    import constriction

    codes: NDArray[np.int32] = constriction.stream.queue.RangeDecoder(words).decode(_model(table), n)
    return codes


def packed_words(codes: NDArray[np.uint8], bits: int) -> bytes:
    """Return codes (rows, columns) packed as in GPTQ checkpoints."""
    import torch

    from bitsure.quantize.weights.packing import pack

    words: NDArray[np.int32] = pack(torch.from_numpy(codes).T, bits).numpy()
    return words.tobytes()


def _model(table: NDArray[np.uint16]) -> Any:
    import constriction

    return constriction.stream.model.Categorical(table / table.sum(dtype=float), perfect=False)


def _check(same: bool, coder: str) -> None:
    if not same:
        raise UserError(
            f"{coder} did not give back the codes that it was given, so its size is unknown. Install another version of it."
        )
