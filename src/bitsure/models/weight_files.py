"""The weight files of a model directory, and the types of number that they hold."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

from bitsure.hub import mirrors
from bitsure.models.gguf_origin import read_origin


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of a model directory, or its .bin files if it has no others; also those its index names."""
    indexed = mirrors.indexed_shards(path)
    files = [*path.glob("*.safetensors")] or [*path.glob("pytorch_model*.bin")] or indexed
    return sorted({*files, *(shard for shard in indexed if shard.suffix == files[0].suffix)})


def has_weights(path: Path) -> bool:
    """Return whether any of a model directory's weight files is there."""
    return any(file.is_file() for file in weight_files(path))


def bytes_on_disk(path: Path) -> int:
    """Return the bytes of a model directory's weight files, or of the GGUF file that it was unpacked from."""
    origin = read_origin(path)
    return origin.bytes if origin else sum(file.stat().st_size for file in weight_files(path) if file.is_file())


def stored_types(path: Path) -> dict[str, int]:
    """Return how many values a checkpoint has of each type, from the headers of its safetensors files.

    Returns:
        Type by the name that safetensors gives it, such as F16 → number of values; empty for .bin files.
    """
    from safetensors import safe_open

    counts: Counter[str] = Counter()
    for file in weight_files(path):
        if file.suffix == ".safetensors" and file.is_file():
            with safe_open(file, "pt", backend="pread") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - not a dict
                    tensor = tensors.get_slice(key)
                    counts[tensor.get_dtype()] += math.prod(tensor.get_shape())
    return dict(counts)


def stored_bits(path: Path, parameters: int) -> float:
    """Return the bits that a parameter takes in a checkpoint: the mean over floating-point values, without masks and headers.

    Args:
        path: The model directory. Of one that was unpacked from a GGUF file the bits are those in the file.
        parameters: The number of parameters. Of .bin files only the size is known before loading, so their bits are the power
            of two that is nearest to size / parameters.
    """
    if origin := read_origin(path):
        kinds = origin.tensor_types.values()
        return sum(kind.bits_per_weight * kind.weights for kind in kinds) / sum(kind.weights for kind in kinds)
    floats = {kind: n for kind, n in stored_types(path).items() if kind.startswith(("F", "BF"))}
    if floats:
        return sum(n * _bits(kind) for kind, n in floats.items()) / sum(floats.values())
    size = sum(file.stat().st_size for file in weight_files(path))
    return float(2.0 ** round(math.log2(8 * size / parameters)))


def _bits(kind: str) -> int:
    return int(re.sub(r"^\D*(\d+).*", r"\1", kind))
