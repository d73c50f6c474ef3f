"""What full precision makes of a quantized model's answers beside its own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bitsure.records.answer_preferences import with_preferences
from bitsure.records.text_tokens import TEXT_SCHEMA
from tests.builders.written import written


def scored(windows, logprobs):
    empty = {name: pa.nulls(len(windows), TEXT_SCHEMA.field(name).type) for name in TEXT_SCHEMA.names}
    return pa.table(empty | {"window": pa.array(windows, pa.int32()), "logprob": pa.array(logprobs, pa.float32())})


def test_a_preference_is_a_mean_over_tokens_and_0_of_the_same_answer():
    own = written(["a", "b", "c"], [True] * 3, [[-0.2, -0.4], [-0.1], [-0.1, -0.1, -0.1]], samples=2)
    others = written(["a", "other", "shorter"], [True] * 3, [[-0.3, -0.3], [-0.9, -0.9, -0.9, -0.9], [-0.5]], samples=2)
    # Full precision read them shortest first: question 2, question 0, question 1, of its own 1, 0, 2.
    tokens = scored([0, 1, 1, 2, 2, 2, 2], [-0.05, -0.2, -0.4, -1.0, -2.0, -3.0, -2.0])
    own_tokens = scored([0, 1, 1, 2, 2, 2], [-0.3, -0.1, -0.1, -0.4, -0.4, -0.4])
    preferred = with_preferences(others, tokens, own, own_tokens)
    assert preferred.schema == others.schema
    assert preferred.filter(pa.compute.equal(preferred["sample"], 1))["preference"].null_count == 3
    values = preferred.filter(pa.compute.equal(preferred["sample"], 0))["preference"].to_pylist()
    assert values == pytest.approx([0.0, -2.0 + 0.3, -0.05 + 0.4])
