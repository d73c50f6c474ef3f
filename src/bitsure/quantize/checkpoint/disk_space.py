"""Whether the store's disk has room for a checkpoint, said before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.config.other_quantizers import Bnb, Cast, Hqq, Noise, Prequantized
from bitsure.config.quantizers import Gptq, Kept, Quant, Rounded
from bitsure.quantize.walk.targets import block_linears, matrix


def check(model: nn.Module, quant: Quant, dtype: str, store: Path) -> None:
    """Raise UserError if the checkpoint of a model (weights are not needed) will not fit on the store's disk."""
    place = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    needed, free = bytes_needed(model, quant, dtype), shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"quant={quant.name} will write about {needed / 2**30:,.2f} GiB into {store}, but its disk has "
            f"{free / 2**30:,.2f} GiB left. Make room, or give another place: paths.store=DIR."
        )


def bytes_needed(model: nn.Module, quant: Quant, dtype: str) -> int:
    """About how much a quantizer writes for a model that it computes with in `dtype`, in bytes."""
    shapes = [matrix(layer).shape for layer in block_linears(model).values()]
    in_layers = sum(shape.numel() for shape in shapes)
    everywhere = sum(parameter.numel() for parameter in model.parameters())
    match quant:
        case Prequantized():
            return 0
        case Noise():
            return bytes_needed(model, quant.like, dtype)
        case Cast():
            return everywhere * size(quant.dtype)
        case Bnb():
            return in_layers // 2 + in_layers // 64 * 4 if quant.type != "int8" else _packed(shapes, 8, -1, 5)
        case Hqq():
            return _packed(shapes, quant.bits, quant.group_size, 4)
        case Gptq(backend="gptqmodel"):  # the whole model, ready to be deployed
            packed = _packed(shapes, quant.bits, quant.group_size, 2 + quant.bits / 8)
            return packed + (everywhere - in_layers) * size(dtype)
        case Gptq(backend="auto_gptq"):  # the same, with scales of the computing type and a tied head once more
            packed = _packed(shapes, quant.bits, quant.group_size, size(dtype) + quant.bits / 8)
            return packed + (sum(tensor.numel() for tensor in model.state_dict().values()) - in_layers) * size(dtype)
        case Kept():
            return len(shapes) * 4 * max(width for _, width in shapes)  # at most a scale an input channel
        case Rounded():
            packed = _packed(shapes, quant.bits, quant.group_size, 2 + quant.bits / 8)
            return packed * 2 if quant.needs_data else packed  # block by block first, to be resumed
    raise AssertionError(f"no quantizer for {quant}")


def _packed(shapes: list[torch.Size], bits: int, group_size: int, bytes_per_group: float) -> int:
    """Codes, scales with zero points, and the 4 bytes that say each column's group."""
    total = 0.0
    for out, width in shapes:
        size = group_size if group_size > 0 else width
        total += out * width * bits / 8 + out * -(-width // size) * bytes_per_group + width * 4
    return int(total)


def size(dtype: str) -> int:
    return getattr(torch, dtype).itemsize
