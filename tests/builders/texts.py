"""Texts that are scored token by token."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from bitsure.config.text import TextSettings
from bitsure.records.text_tokens import TEXT_SCHEMA

TASK = "text/local/gptq"
MADE_FROM = {TASK: {"text": {"sha256": "a", "window": 8}}}

DOCUMENTS = [
    "the quick brown fox jumps over the lazy dog. " * 6,
    "a cat sat on the mat while it rained; naïve 东京 🙂 words. " * 5,
    "it rained in the town and the dog sat down. " * 7,
]


def write_documents(folder: Path, documents: list[str] = DOCUMENTS) -> Path:
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return path


def text_settings(path: Path, protocol: str = "gptq", **changes: object) -> TextSettings:
    return TextSettings(name="local", path=str(path), protocol=protocol, **changes)


def token_rows(documents: list[int], windows: list[int], logprob: list[float] | None = None) -> pa.Table:
    """Tokens of a text; the log-probabilities are −0.5, −1, −1.5 … unless they are given, each token has 3 bytes."""
    n = len(documents)
    columns = {
        "task": [TASK] * n,
        "document": documents,
        "position": range(n),
        "window": windows,
        "token": range(10, 10 + n),
        "logprob": logprob or [-(i + 1) / 2 for i in range(n)],
        "top_token": [10] * n,
        "top_prob": [0.9] * n,
        "bytes": [3] * n,
        "kl_divergence": [None] * n,
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()}).cast(TEXT_SCHEMA)
