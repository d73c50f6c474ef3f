"""Codes through real compressors and back: how many bits are left, and how long decoding takes on this machine.

zstd is pyarrow's, the range coder is constriction's (Bamler 2022), told each tensor's frequencies of codes: a real coder's way
to the entropy. Each runs on one thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from bitsure.base.errors import UserError
from bitsure.results.compressibility import CODER_LABELS

ZSTD_LEVEL = 1  # higher ones look longer for repetitions, which codes hardly have, and come out larger as often as smaller
ZSTD_PACKED, ZSTD_BYTES, RANGE_CODER = NAMES = tuple(CODER_LABELS)
TABLE = np.uint16  # what a tensor's frequency of a code is stored in


@dataclass(frozen=True)
class Size:
    """What a coder made of some codes."""

    bits: int
    seconds: float  # to decode it


def sizes(codes: np.ndarray, bits: int) -> dict[str, Size]:
    """What each coder makes of codes (rows, columns) uint8. Raises UserError if decoding does not give back the same."""
    packed = {ZSTD_PACKED: zstd(packed_words(codes, bits)), ZSTD_BYTES: zstd(codes.tobytes())}
    return packed | {RANGE_CODER: range_coder(codes.ravel(), bits)}


def zstd(data: bytes) -> Size:
    """zstd of bytes."""
    import pyarrow as pa

    codec = pa.Codec("zstd", compression_level=ZSTD_LEVEL)
    compressed = codec.compress(data, asbytes=True)
    started = time.perf_counter()
    back = codec.decompress(compressed, len(data), asbytes=True)
    seconds = time.perf_counter() - started
    _check(back == data, "zstd")
    return Size(len(compressed) * 8, seconds)


def range_coder(codes: np.ndarray, bits: int) -> Size:
    """A range coder with one table of frequencies, which is counted; codes: (n,) uint8."""
    table = frequencies(codes, bits)
    words = range_encode(codes, table)
    started = time.perf_counter()
    back = range_decode(words, table, len(codes))
    seconds = time.perf_counter() - started
    _check(np.array_equal(back, codes), "the range coder")
    return Size(words.size * 32 + table.size * table.itemsize * 8, seconds)


def frequencies(codes: np.ndarray, bits: int) -> np.ndarray:
    """How often each code occurs, (2**bits,) uint16; one that occurs at all is not 0."""
    counts = np.bincount(codes, minlength=2**bits)
    largest = np.iinfo(TABLE).max
    return np.where(counts, np.maximum(1, np.round(counts / max(1, counts.max()) * largest)), 0).astype(TABLE)


def range_encode(codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(n,) codes as 32-bit words."""
    import constriction

    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(codes.astype(np.int32), _model(table))
    return encoder.get_compressed()


def range_decode(words: np.ndarray, table: np.ndarray, n: int) -> np.ndarray:
    """The n codes again, int32."""
    import constriction

    return constriction.stream.queue.RangeDecoder(words).decode(_model(table), n)


def packed_words(codes: np.ndarray, bits: int) -> bytes:
    """Codes (rows, columns) as the words of GPTQ checkpoints."""
    import torch

    from bitsure.quantize.weights.packing import pack

    return pack(torch.from_numpy(codes).T, bits).numpy().tobytes()


def _model(table: np.ndarray):
    import constriction

    return constriction.stream.model.Categorical(table / table.sum(dtype=float), perfect=False)


def _check(same: bool, coder: str) -> None:
    if not same:
        raise UserError(f"{coder} did not give back the codes it was given. No size is taken from that.")
