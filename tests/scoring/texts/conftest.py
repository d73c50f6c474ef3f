"""The model that texts are scored with."""

from __future__ import annotations

import pytest

from bitsure.config.schema import ModelSettings
from bitsure.models.locate import Source, locate_model


@pytest.fixture
def source(tiny_model) -> Source:
    return locate_model(ModelSettings(path=str(tiny_model)), None)
