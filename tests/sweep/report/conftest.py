"""Sweeps, as bitsure's cells leave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sweep import write_sweep
from tests.builders.sweeps import QUANTIZERS


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """Four models, two of each size, three quantizers, two tasks, 60 questions each."""
    folder = tmp_path_factory.mktemp("sweeps") / "small"
    write_sweep(folder, 4, 2, 60, QUANTIZERS)
    return folder


@pytest.fixture(scope="session")
def two_cells(tmp_path_factory) -> Path:
    """One model, two quantizers and one task: as much as a report needs, which has few pictures of it."""
    folder = tmp_path_factory.mktemp("sweeps") / "two"
    write_sweep(folder, 1, 1, 30, ("rtn4", "rtn2"))
    return folder
