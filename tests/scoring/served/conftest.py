from __future__ import annotations

import pytest

from bitsure.scoring.served import completions_client
from tests.builders.tokenizers import byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Two new tries, at once."""
    monkeypatch.setattr(completions_client, "WAITS", (0, 0))
    monkeypatch.delenv("BITSURE_SERVER_KEY", raising=False)
