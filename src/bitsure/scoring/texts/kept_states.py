"""The full model's states before its head in a file: what each quantizer of a sweep is compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from bitsure.base.files import write_text

STATES_FILE, SHAPE_FILE = "states.bin", "states.json"


class StatesWriter:
    """Writes states, in the type that they were computed in: another would make identical models differ."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.dtype, self.width, self.size = "", 0, 0

    def write(self, states: torch.Tensor) -> None:
        """Add states, shape (n, width)."""
        self.dtype, self.width = str(states.dtype).removeprefix("torch."), states.shape[1]
        self.size += self._file.write(states.cpu().contiguous().view(torch.uint8).numpy().data)


@contextmanager
def writing_states(folder: Path) -> Iterator[StatesWriter]:
    """Yield a writer of states into a folder."""
    with (folder / STATES_FILE).open("wb") as file:
        writer = StatesWriter(file)
        yield writer
    write_text(folder / SHAPE_FILE, json.dumps({"dtype": writer.dtype, "width": writer.width}))


class KeptStates:
    """States in a folder that `writing_states` wrote, in the same order. They are read as they are needed.

    Args:
        folder: The folder.
        start: How many tokens are left out at the beginning.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        shape = json.loads((folder / SHAPE_FILE).read_text(encoding="utf-8"))
        self._dtype: torch.dtype = getattr(torch, shape["dtype"])
        row = shape["width"] * self._dtype.itemsize
        self._rows = np.memmap(folder / STATES_FILE, dtype=np.uint8, mode="r").reshape(-1, row)
        self._read = start

    def next(self, count: int) -> torch.Tensor:
        """Return the states of the next `count` tokens, shape (count, width)."""
        rows = np.array(self._rows[self._read : self._read + count])
        self._read += count
        return torch.from_numpy(rows).view(self._dtype)
