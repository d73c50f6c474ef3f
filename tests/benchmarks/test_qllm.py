"""The intervals of benchmarks/qllm.md and rotations.md."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.qllm import over_draws_and_questions


def test_two_questions_of_one_cluster_count_as_one():
    """Each question twice is no more data; taken for others, they would make the error smaller by √2."""
    rng = np.random.default_rng(0)
    draws = np.repeat(rng.normal(0.1, 0.2, 300)[None], 5, axis=0)  # of which nothing differs between draws
    twice, clusters = np.repeat(draws, 2, axis=1), np.repeat(np.arange(300), 2)
    half = {}
    for name, of in (("clusters", clusters), ("questions", np.arange(600))):
        value, low, high = over_draws_and_questions(twice, of)
        assert value == pytest.approx(draws.mean()) and value - low == pytest.approx(high - value)
        half[name] = high - value
    assert half["clusters"] / half["questions"] == pytest.approx(np.sqrt(2), rel=0.05)
    assert half["clusters"] == pytest.approx(1.96 * draws[0].std(ddof=1) / np.sqrt(300), rel=0.05)
