from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def model(tiny_model):
    from bitsure.models import source as models

    return models.load(tiny_model, "float32")[0]
