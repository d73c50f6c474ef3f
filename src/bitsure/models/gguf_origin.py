"""The note beside a model that was unpacked from a GGUF file: which file, and what it held."""

from __future__ import annotations

from pathlib import Path

from bitsure.results import read_if_there, write
from bitsure.results.gguf import GgufOrigin

NOTE = "gguf.json"


def read_origin(directory: Path) -> GgufOrigin | None:
    """Return what a model directory was unpacked from; None if that was no GGUF file."""
    return read_if_there(directory / NOTE, GgufOrigin)


def write_origin(directory: Path, origin: GgufOrigin) -> None:
    """Note in a model directory what it was unpacked from."""
    write(directory / NOTE, origin)
