"""Whether the store's disk has room for a checkpoint, and about how much checkpoints take."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from bitsure.base.byte_sizes import binary_size
from bitsure.base.errors import UserError
from bitsure.quantize.walk.targets import block_linears, matrix


def check(needed: int, quantizer: str, store: Path) -> None:
    """Raise UserError if a checkpoint will not fit on the store's disk.

    Args:
        needed: Bytes that it takes.
        quantizer: The quantizer's name, for the message.
        store: The store's directory, which may not exist yet.
    """
    _check_room(needed, f"quant={quantizer}", store, "paths.store=DIR")


def check_unpacked(modules: nn.Module, dtype: str) -> None:
    """Raise UserError if TMPDIR has no room for the unpacked model that vLLM loads.

    Args:
        modules: The model; its weights are not needed.
        dtype: The type of the weights.
    """
    numbers = sum(parameter.numel() for parameter in modules.parameters())
    _check_room(numbers * item_bytes(dtype), "scoring.engine=vllm", Path(tempfile.gettempdir()), "the variable TMPDIR=DIR")


def _check_room(needed: int, writer: str, folder: Path, setting: str) -> None:
    place = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{writer} will write about {binary_size(needed)} into {folder}, but its disk has "
            f"{binary_size(free)} left. Make room, or give another place: {setting}."
        )


def layer_numbers(modules: nn.Module) -> int:
    """Return how many weights the linear layers in a model's blocks have."""
    return sum(matrix(layer).numel() for layer in block_linears(modules).values())


def dense_bytes(modules: nn.Module, dtype: str) -> int:
    """Return the bytes of those weights as numbers of a torch type."""
    return layer_numbers(modules) * item_bytes(dtype)


def packed_bytes(modules: nn.Module, bits: int, group_size: int, bytes_per_group: float) -> int:
    """Return the bytes of their codes, scales with zero points, and the 4 bytes that say each column's group.

    Args:
        modules: The model; its weights are not needed.
        bits: Of a code.
        group_size: Weights that share a scale; 0 or below: a whole row.
        bytes_per_group: Of a scale and a zero point.
    """
    total = 0.0
    for out, width in (matrix(layer).shape for layer in block_linears(modules).values()):
        size = group_size if group_size > 0 else width
        total += out * width * bits / 8 + out * -(-width // size) * bytes_per_group + width * 4
    return int(total)


def item_bytes(dtype: str) -> int:
    """Return the bytes of a number of a torch type."""
    kind: torch.dtype = getattr(torch, dtype)
    return kind.itemsize
