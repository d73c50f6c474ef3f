"""The time to load quantized layers, from the size of their codes."""

from __future__ import annotations

from bitsure.compress import coders
from bitsure.results.compressibility import AS_STORED, Codes, Loading, LoadTime


def load_times(weights: Codes, bandwidth: float) -> Loading:
    """Return the seconds to read the quantized layers and to decode them, by coder.

    Args:
        weights: What was measured of the weights.
        bandwidth: Of the disk or link, MB/s (10⁶ bytes).

    Returns:
        The times; reading and decoding, at the rate measured on one thread here, follow each other.
    """
    stored = weights.bits_per_weight * weights.weights / 8e6
    read = stored / bandwidth
    by_coder = {AS_STORED: LoadTime(mb=stored, read_seconds=read, decode_seconds=0.0, seconds=read)}
    for coder in coders.NAMES:
        result = weights.coders[coder]
        mb, decode = stored / result.ratio, result.seconds_to_decode
        by_coder[coder] = LoadTime(
            mb=mb,
            read_seconds=mb / bandwidth,
            decode_seconds=decode,
            faster_below_mb_per_second=(stored - mb) / decode if mb < stored else None,
            seconds=mb / bandwidth + decode,
        )
    return Loading(bandwidth_mb_per_second=bandwidth, by_coder=by_coder)
