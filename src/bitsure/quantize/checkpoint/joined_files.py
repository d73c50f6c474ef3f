"""Joining safetensors files into one, a piece at a time: the library writes only what is in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

ALIGNMENT = 8  # of the header's length, bytes


def join_files(files: Sequence[Path], joined: Path) -> None:
    """Write the tensors of several safetensors files, whose names differ, into one.

    Those of wider types stand first, so that all are aligned, and those of one width by name.
    """
    tensors = {name: (file, place) for file in files for name, place in _header(file).items()}
    order = sorted(tensors, key=lambda name: (-_item_bits(tensors[name][1]), name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        place = tensors[name][1]
        start, end = end, end + _length(place)
        header[name] = {**place, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with joined.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            _copy(*tensors[name], out)


def _header(file: Path) -> dict[str, Any]:
    """Return tensor → its dtype, shape and data_offsets."""
    with file.open("rb") as opened:
        header: dict[str, Any] = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return {name: place for name, place in header.items() if name != "__metadata__"}


def _length(place: dict[str, Any]) -> int:
    start, end = place["data_offsets"]
    return int(end - start)


def _item_bits(place: dict[str, Any]) -> int:
    """Return the bits of a number of a tensor's type, whose names are such as F16, BOOL, F8_E4M3."""
    digits = "".join(digit for digit in place["dtype"].partition("_")[0] if digit.isdigit())
    return int(digits or 8)


def _copy(file: Path, place: dict[str, Any], out: BinaryIO) -> None:
    with file.open("rb") as opened:
        data = 8 + int.from_bytes(opened.read(8), "little")
        opened.seek(data + place["data_offsets"][0])
        left = _length(place)
        while left:
            piece = opened.read(min(left, shutil.COPY_BUFSIZE))  # type: ignore[attr-defined] # of shutil, not in its stubs
            out.write(piece)
            left -= len(piece)
