"""Whether the weight files of a model are whole, and every value in them a number."""

from __future__ import annotations

import functools
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.base.files import as_on_disk
from bitsure.base.json_files import read_object
from bitsure.base.out_of_memory import is_out_of_memory, memory_errors
from bitsure.hub import mirrors
from bitsure.models.weight_files import weight_files

if TYPE_CHECKING:
    import torch


def check_whole(path: Path) -> None:
    """Check the indices and the headers of a model's weight files; no weights are read.

    Raises:
        UserError: If one is damaged or was cut short.
    """
    for index in path.glob("*.index.json"):
        mirrors.shards_of(index)
    for file in weight_files(path):
        if file.suffix == ".safetensors":
            with memory_errors(f"reading {file}"):
                _check_header(file)
        else:
            with file.open("rb") as opened:
                begins_as_archive = opened.read(2) == b"PK"
            if not file.stat().st_size or (begins_as_archive and not zipfile.is_zipfile(file)):
                raise _damaged(file, "its end is missing")


def check_indices(path: Path) -> None:
    """Raise UserError if an index that transformers loads weights by lacks the part that it asks for without a use."""
    for index in path.glob("*.index.json") if mirrors.indexed_shards(path) else ():
        if not isinstance(read_object(index).get("metadata"), dict):
            raise UserError(f'{index} has no metadata, without which transformers loads nothing: add "metadata": {{}}.')


def check_floating(path: Path) -> None:
    """Raise UserError if a matrix of a model's weights holds integers, which mean nothing without quantization settings.

    Headers alone are read where a file has them. Masks and positions, which old checkpoints keep, are no weights.
    """
    for file in weight_files(path):
        with memory_errors(f"reading {file}"):
            for name, dtype, dimensions in _types(file):
                if name.endswith("weight") and dimensions > 1 and dtype.startswith(("I", "U")):
                    raise UserError(
                        f"{file}: {name} holds integers ({dtype}), as quantized weights do, and no settings beside it say what "
                        "they stand for. Bring its quantization_config, or the model in full precision."
                    )


def check_finite(path: Path, dtype: str | None = None) -> None:
    """Read all weight files of a model, a tensor at a time; files that were read before in this process are not read again.

    Args:
        path: The model's directory.
        dtype: The name of the torch type that weights are loaded in; None: the one they are stored in.

    Raises:
        UserError: If a value is not a finite number, or `dtype` makes it infinite, or a file is damaged or holds other things
            than weights.
    """
    for file in weight_files(path):
        with memory_errors(f"reading {file}"):
            _check_finite(file, dtype == "float16", *as_on_disk(file))


@functools.cache
def _check_finite(file: Path, in_float16: bool, *_: str | int) -> None:
    """Check a file; what else identifies it on disk tells it from an earlier one of its name."""
    for name, tensor in _tensors(file):
        if tensor.is_floating_point() and (broken := _not_finite(tensor)):
            raise UserError(
                f"{file}: {broken} of the {tensor.numel():,} values of {name} are NaN or infinite: no score can be had "
                "from them. Bring the file again, or mend the values."
            )
        if in_float16 and _is_beyond_float16(tensor):
            raise UserError(
                f"{file}: {name} holds values above 65,504, which float16 cannot hold. Take model.dtype=bfloat16 or float32."
            )


def _is_beyond_float16(tensor: torch.Tensor) -> bool:
    """Return whether float16 makes a value infinite; a single number, such as an old file's -1e9 for masks, is no weight."""
    may_be = tensor.is_floating_point() and tensor.dtype.itemsize > 1 and tensor.dim() > 0 and tensor.numel() > 0
    return may_be and not all(end.half().isfinite() for end in tensor.aminmax())


def _not_finite(tensor: torch.Tensor) -> int:
    values = tensor if tensor.dtype.itemsize > 1 else tensor.float()  # torch tests no values of 8 bits
    if not values.numel() or all(end.isfinite() for end in values.aminmax()):  # NaN is both ends; 40 times as fast
        return 0
    return int((~values.isfinite()).sum())


def _check_header(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np", backend="pread"):
            pass
    except SafetensorError as error:
        if is_out_of_memory(error):
            raise
        raise _damaged(file, str(error)) from error


def _types(file: Path) -> Iterator[tuple[str, str, int]]:
    """Yield each tensor's name, type in capitals, and number of dimensions."""
    from safetensors import safe_open

    if file.suffix == ".safetensors":
        with safe_open(file, "np", backend="pread") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                part = tensors.get_slice(name)
                yield name, part.get_dtype(), len(part.get_shape())
        return
    for name, tensor in _tensors(file):
        yield name, str(tensor.dtype).removeprefix("torch.").upper(), tensor.ndim


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    import torch
    from safetensors import safe_open

    if file.suffix == ".safetensors":
        with safe_open(file, "pt", backend="pread") as tensors:  # An address-space limit counts a mapped file as a whole.
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                yield name, tensors.get_tensor(name)
        return
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} holds other things than weights, or its end is missing; torch's weights-only loader does not read it: "
            "other things may run code. Bring the file again, or convert it to safetensors where you trust it."
        ) from error
    except (EOFError, RuntimeError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        raise _damaged(file, str(error)) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{file} holds a {type(content).__name__}, and tensors by name are expected. Bring the right file.")
    yield from ((name, value) for name, value in content.items() if isinstance(value, torch.Tensor))


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(f"{file} was cut short or damaged ({reason.strip() or 'it ends too early'}). Bring the file again.")
