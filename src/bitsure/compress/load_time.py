"""What the size of codes means for the time that loading them takes."""

from __future__ import annotations

from bitsure.compress import coders
from bitsure.results.compressibility import AS_STORED


def times(weights: dict, bandwidth: float) -> dict:
    """Seconds to read the quantized layers over a disk or link of `bandwidth` MB/s (10⁶ bytes) and decode them, by coder.

    weights: of compressibility.json. Reading and decoding, at the rate measured on one thread here, follow each other. Below
    `faster_below_mb_per_second` a coder loads sooner than what is stored; null if it never does.
    """
    stored = weights["bits_per_weight"] * weights["weights"] / 8e6
    found = {AS_STORED: {"mb": stored, "read_seconds": stored / bandwidth, "decode_seconds": 0.0}}
    for coder in coders.NAMES:
        one = weights["coders"][coder]
        mb, decode = stored / one["ratio"], one["seconds_to_decode"]
        found[coder] = {"mb": mb, "read_seconds": mb / bandwidth, "decode_seconds": decode}
        found[coder]["faster_below_mb_per_second"] = (stored - mb) / decode if mb < stored else None
    for one in found.values():
        one["seconds"] = one["read_seconds"] + one["decode_seconds"]
    return {"bandwidth_mb_per_second": bandwidth, "by_coder": found}
