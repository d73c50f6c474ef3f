"""A small sweep, as bitsure's cells leave it."""

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
