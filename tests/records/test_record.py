"""Records as rows and as columns."""

from __future__ import annotations

import pyarrow as pa

from bitsure.records.record import to_records, to_table
from tests.builders.records import record


def test_a_table_that_holds_texts_beside_questions_gives_the_questions_records():
    rows = [record([-1.0, -2.0], doc_id=i) for i in range(2)]
    table = to_table(rows)
    wider = table.append_column("tokens", pa.array([[1], [2]]))
    assert to_records(wider) == to_records(table) == rows
