from __future__ import annotations

from contextlib import ExitStack

import pytest


@pytest.fixture(scope="session")
def model(tiny_model):
    from bitsure.models.load import load_model

    return load_model(tiny_model, "float32")[0]


@pytest.fixture
def stack():
    """What ends vLLM."""
    with ExitStack() as stack:
        yield stack
