"""When two models' records of a question count as equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bitsure.records.equal_records import equal_records
from bitsure.records.record import to_table
from tests.builders.records import record

ROWS = [record([-1.5, -2.0], doc_id=i) for i in range(3)]


@pytest.mark.parametrize(
    ("changed", "equal"),
    [
        ({"choice_logprobs": [-1.5, np.nextafter(-2.0, 0)]}, 2),
        ({"choice_greedy": [True, True]}, 2),
        ({"doc_id": 7, "choices": [" a", " b"]}, 3),
        ({"choice_tokens": None, "token_logprobs": None}, 3),  # as in a harness log
    ],
)
def test_records_are_equal_if_the_model_gives_the_same_to_the_last_bit(changed, equal):
    assert equal_records(to_table(ROWS), to_table([ROWS[0], replace(ROWS[1], **changed), ROWS[2]])) == equal


def test_written_answers_are_equal_if_their_texts_are():
    before, after = (to_table(ROWS).append_column("answer", pa.array(texts)) for texts in (["a", "b", "c"], ["a", "b", "d"]))
    assert equal_records(before, before) == 3 and equal_records(before, after) == 2
