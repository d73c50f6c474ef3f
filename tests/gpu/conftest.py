from __future__ import annotations

import os

import pytest

from tests.builders.gpu import LINES


@pytest.fixture(scope="session")
def device():
    """The GPU; or what BITSURE_TEST_DEVICE names, where `cpu` runs all but what needs a GPU itself."""
    import torch

    name = os.environ.get("BITSURE_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here; BITSURE_TEST_DEVICE=cpu runs what a CPU can")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)  # some functions want the number


@pytest.fixture
def gpu(device):
    """The GPU itself, for tests of what a CPU does not have."""
    if device.type != "cuda":
        pytest.skip("only on a GPU")
    return device


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what was measured."""
    for line in LINES:
        terminalreporter.write_line(line)
