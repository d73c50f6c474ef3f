"""A small sweep, as bitsure's cells leave it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.sweep import write_sweep

HOSTILE = '<script>alert("x")</script>'
QUANTIZERS = ("gptq4", "rtn4", "rtn2")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """Four models, two of each size, three quantizers, two tasks, 60 questions each."""
    folder = tmp_path_factory.mktemp("sweeps") / "small"
    write_sweep(folder, 4, 2, 60, QUANTIZERS)
    return folder


def leave(folder: Path, name: str, **status) -> None:
    """A cell that did not come to its end."""
    (folder / name).mkdir()
    (folder / name / "config.yaml").write_text(
        f"model: {{name: other}}\nquant: {{name: gptq4}}\ncalib: {{name: '{HOSTILE}'}}\n"
    )
    (folder / name / "status.json").write_text(json.dumps(status))
