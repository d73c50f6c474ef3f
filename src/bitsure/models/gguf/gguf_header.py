"""The header of a GGUF file: its metadata, and where each tensor lies, checked against the size of the file.

Reference: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
from array import array
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitsure.base.errors import UserError
from bitsure.base.files import as_on_disk
from bitsure.models.facts import transformers_major_version

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, where the metadata does not say otherwise
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # of struct, by type
STRING, ARRAY = 8, 9
MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies in a GGUF file, and how it is stored."""

    name: str
    shape: tuple[int, ...]
    """In torch's order: rows before columns. Blocks lie along the last dimension."""
    type: GGMLQuantizationType
    """The type of its blocks, or of its floating-point numbers."""
    offset: int
    """From the beginning of the file, bytes."""

    @property
    def weights(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def bytes_per_row(self) -> int:
        """The bytes of the blocks along the last dimension."""
        block, size = _block_of(self.type)
        return self.shape[-1] // block * size

    @property
    def bytes(self) -> int:
        """The bytes of all blocks."""
        return math.prod(self.shape[:-1]) * self.bytes_per_row


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file whose header was read and checked."""

    path: Path
    metadata: dict[str, Any]
    """Key → number, text, an array of numbers, or a list of texts."""
    tensors: dict[str, GgufTensor]
    """By name, in the file's order."""

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.metadata["general.architecture"])

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """Return the bytes of a tensor as they are stored, shape (rows …, bytes of a row)."""
        tensor = self.tensors[name]
        shape = (*tensor.shape[:-1], tensor.bytes_per_row)
        return np.memmap(self.path, dtype=np.uint8, mode="r", offset=tensor.offset, shape=shape)

    def values(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as float32, decoded by the package `gguf`."""
        import gguf

        values: NDArray[np.float32] = gguf.dequantize(self.blocks(name), self.tensors[name].type)
        return values.reshape(self.tensors[name].shape)


def is_gguf(path: str | Path | None) -> bool:
    """Return whether a path names a GGUF file, by its ending."""
    return path is not None and Path(path).suffix.lower() == ".gguf"


def read_gguf(path: Path) -> GgufFile:
    """Read and check the header of a GGUF file; no weights are read.

    Raises:
        UserError: If the file is missing, no GGUF file, cut short, contradicts itself, or holds what is not supported.
    """
    if transformers_major_version() == 4:
        raise UserError(f"{path}: GGUF files are read with transformers 5: use .venv/bin/python.")
    if not path.is_file():
        raise UserError(f"{path}: no such file (looked at {path.absolute()}).")
    return _read(path, *as_on_disk(path))


@functools.cache
def _read(path: Path, *_: str | int) -> GgufFile:
    """Read a header; what else identifies the file on disk tells it from an earlier one of its name."""
    if path.stat().st_size < len(MAGIC):
        raise _damaged(path, "it ends before its first number")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _parse(path, content)
        except struct.error as error:
            raise _damaged(path, "it ends inside its header") from error
        except UnicodeDecodeError as error:
            raise _damaged(path, "a text in its header is not UTF-8") from error


class _Cursor:
    """A place in the file that reading moves on."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.place = path, content, 0

    def numbers(self, layout: str, count: int = 1) -> tuple[Any, ...]:
        form = f"<{count}{layout}"
        self.check_room(count, struct.calcsize(f"<{layout}"))
        values = struct.unpack_from(form, self.content, self.place)
        self.place += struct.calcsize(form)
        return values

    def number(self, layout: str) -> Any:
        return self.numbers(layout)[0]

    def array(self, layout: str, count: int) -> array[Any]:
        """Return numbers as they are packed: a list of millions takes ten times their bytes."""
        values = array(layout.replace("?", "B"))
        self.check_room(count, values.itemsize)
        begin, self.place = self.place, self.place + count * values.itemsize
        values.frombytes(self.content[begin : self.place])
        return values

    def text(self) -> str:
        length = self.number("Q")
        self.check_room(length, 1)
        self.place += length
        return self.content[self.place - length : self.place].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise _damaged(self.path, f"its metadata has a value of the type {kind}, which GGUF does not have")
        inner, count = self.number("I"), self.number("Q")
        if inner in NUMBERS:
            return self.array(NUMBERS[inner], count)
        if inner != STRING:
            raise _damaged(self.path, f"its metadata has an array of the type {inner}; numbers and texts are read")
        self.check_room(count, 8)
        return [self.text() for _ in range(count)]

    def check_room(self, count: int, size: int) -> None:
        """Raise UserError if so many things of `size` bytes are more than the rest of the file."""
        left = len(self.content) - self.place
        if count * size > left:
            raise _damaged(self.path, f"its header counts {count:,} values where {left:,} bytes are left")


def _parse(path: Path, content: mmap.mmap) -> GgufFile:
    if content[:4] != MAGIC:
        raise UserError(f"{path} is no GGUF file: it begins with {content[:4]!r} and not with {MAGIC!r}.")
    cursor = _Cursor(path, content)
    cursor.place = len(MAGIC)
    version = cursor.number("I")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "written for big-endian machines" if swapped else f"of version {version}"
        raise UserError(f"{path} is {what}: GGUF of versions 2 and 3, little-endian, is read. Convert the model again.")
    tensor_count, value_count = cursor.numbers("Q", 2)
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text()
        if key in metadata:
            raise _damaged(path, f"its metadata has {key} twice")
        metadata[key] = cursor.value(cursor.number("I"))
    _check_metadata(path, metadata)
    entries = [_tensor_entry(cursor) for _ in range(tensor_count)]
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    tensors = [_placed(path, entry, -(-cursor.place // alignment) * alignment, alignment) for entry in entries]
    _check_places(path, tensors, len(content))
    _check_sizes(path, metadata, tensors)
    return GgufFile(path, metadata, {tensor.name: tensor for tensor in tensors})


def _check_metadata(path: Path, metadata: dict[str, Any]) -> None:
    if not isinstance(metadata.get("general.architecture"), str):
        raise _damaged(path, "its metadata has no general.architecture")
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
        raise _damaged(path, f"general.alignment is {alignment!r}, and a multiple of 8 is needed")
    if (parts := metadata.get("split.count", 1)) not in (0, 1):
        raise UserError(
            f"{path} is one of {parts} parts of a model. Join them with llama.cpp: "
            "llama-gguf-split --merge FIRST.gguf WHOLE.gguf"
        )


def _tensor_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Return a tensor's name, shape, number of the type, and offset from the beginning of the tensors."""
    name, dimensions = cursor.text(), cursor.number("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise _damaged(cursor.path, f"{name} has {dimensions} dimensions, and 1 to {MAX_DIMENSIONS} are possible")
    shape = tuple(reversed(cursor.numbers("Q", dimensions)))
    return name, shape, cursor.number("I"), cursor.number("Q")


def _placed(path: Path, entry: tuple[str, tuple[int, ...], int, int], begin: int, alignment: int) -> GgufTensor:
    from gguf import GGMLQuantizationType

    name, shape, number, offset = entry
    known = {kind.value: kind for kind in GGMLQuantizationType}
    if number not in known or not _is_decoded(known[number]):
        kind = known[number].name if number in known else f"number {number}"
        decoded = ", ".join(kind.name for kind in known.values() if _is_decoded(kind))
        raise UserError(f"{path}: {name} is of the type {kind}, which the package gguf does not decode. It decodes {decoded}.")
    block, _ = _block_of(known[number])
    if 0 in shape or shape[-1] % block:
        raise _damaged(path, f"{name} has the shape {shape}, whose rows are not whole blocks of {block}")
    if offset % alignment:
        raise _damaged(path, f"{name} begins at byte {offset:,} of the tensors, which is no multiple of {alignment}")
    return GgufTensor(name, shape, known[number], begin + offset)


def _check_places(path: Path, tensors: list[GgufTensor], size: int) -> None:
    """Raise UserError for tensors of one name, for tensors that share bytes, and for a file that ends before a tensor does."""
    names = [tensor.name for tensor in tensors]
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise _damaged(path, f"it has {twice[0]} twice")
    in_order = sorted(tensors, key=lambda tensor: tensor.offset)
    for tensor, later in pairwise(in_order):
        if tensor.offset + tensor.bytes > later.offset:
            raise _damaged(path, f"{tensor.name} and {later.name} lie on the same bytes")
    if in_order and (end := in_order[-1].offset + in_order[-1].bytes) > size:
        raise _damaged(path, f"{in_order[-1].name} ends at byte {end:,}, and the file has {size:,}")


def _check_sizes(path: Path, metadata: dict[str, Any], tensors: list[GgufTensor]) -> None:
    """Raise UserError for sizes of a model that the tensors cannot have: a model of such sizes would be built first."""
    prefix = f"{metadata['general.architecture']}."
    for key in ("context_length", "embedding_length", "rope.freq_base"):
        value = metadata.get(prefix + key)
        if isinstance(value, (int, float)) and not 0 < value < math.inf:
            raise _damaged(path, f"its {prefix}{key} is {value}")
    blocks = {tensor.name.split(".")[1] for tensor in tensors if tensor.name.startswith("blk.")}
    count = metadata.get(f"{prefix}block_count", len(blocks))
    if count != len(blocks):
        raise _damaged(path, f"its {prefix}block_count is {count}, and its tensors are of {len(blocks)} blocks")
    largest = max((max(tensor.shape) for tensor in tensors), default=0)
    for key in ("embedding_length", "feed_forward_length", "vocab_size"):
        value = metadata.get(prefix + key)
        if isinstance(value, int) and value > largest:
            raise _damaged(path, f"its {prefix}{key} is {value:,}, and no tensor has more than {largest:,} rows or columns")


@functools.cache
def _is_decoded(kind: GGMLQuantizationType) -> bool:
    import gguf

    try:
        gguf.dequantize(np.zeros((1, _block_of(kind)[1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _block_of(kind: GGMLQuantizationType) -> tuple[int, int]:
    """Return how many weights a block of a type has, and its bytes."""
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[kind]
    return int(block), int(size)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} was cut short or damaged: {reason}. Bring the file again.")
