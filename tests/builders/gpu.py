"""What tests of a GPU share: models on it, and the lines that they print in the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from unittest import mock

import numpy as np
import pytest
import torch

from bitsure.config.paths import PROJECT
from bitsure.models.load import load_model
from bitsure.scoring.local.pass_choice import TOLERANCE
from bitsure.scoring.requests import Scored

POCKET = PROJECT / "pocket" / "models" / "pocket-llama-1m"
LINES: list[str] = []  # measured shares and sizes, which no test can promise
CONTEXT = 256  # tokens


def scoring_requests(vocabulary: int = 1000) -> list[tuple[list[int], list[int]]]:
    """24 questions of 4 choices, half of them after the same 60 tokens."""
    rng = np.random.default_rng(0)
    draw = lambda n: rng.integers(3, vocabulary, n).tolist()  # noqa: E731
    examples, asked = draw(60), []
    for question in range(24):
        context = (examples if question % 2 else []) + draw(5 + 2 * question)
        asked += [(context, draw(1 + choice * 2)) for choice in range(4)]
    return asked


def on_device(device: torch.device, dtype: str = "float32", path=POCKET):
    """Return a model, and its tokenizer."""
    return load_model(path, dtype, str(device))


def assert_near(results: list[Scored], expected: list[Scored], dtype: str) -> None:
    """Compare log-probabilities within what the engine itself allows two ways to run a request in a type."""
    absolute, relative = TOLERANCE[dtype]
    for result, other in zip(results, expected, strict=True):
        assert result.logprob == pytest.approx(other.logprob, abs=absolute, rel=relative)


@contextmanager
def process_without_gpu() -> Iterator[Executor]:
    """Yield a process for which there is no GPU: libraries look for one when they are imported."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        with mock.patch.dict("os.environ", {"CUDA_VISIBLE_DEVICES": ""}):
            process.submit(abs, 0).result()  # which starts it
        yield process
