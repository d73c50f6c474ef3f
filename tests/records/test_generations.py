from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.records import join, read_saved_run, write_records
from bitsure.records.answer_units import answer_units, is_written
from bitsure.records.generations import ADDED_LATER, GENERATIONS_SCHEMA, GENERATIONS_TABLE, read_generations
from bitsure.records.record import SCHEMA
from bitsure.records.saved_run import generations_beside, texts_beside
from tests.builders.written import written

ROWS = written(["fox", "cat"], [True, False], [[-0.1, -0.3], [-1.0]], samples=2)


def test_answers_are_read_as_they_were_written(tmp_path):
    GENERATIONS_TABLE.write(tmp_path / "generations.parquet", ROWS, {"free": {"model": "m"}})
    table, made_from = read_generations(tmp_path / "generations.parquet")
    assert (
        table.schema == GENERATIONS_SCHEMA and table.to_pylist() == ROWS.to_pylist() and made_from == {"free": {"model": "m"}}
    )
    assert len(read_generations(tmp_path / "none.parquet")[0]) == 0
    (tmp_path / "generations.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"generations\.parquet cannot be read as written answers"):
        read_generations(tmp_path / "generations.parquet")


def test_files_of_earlier_versions_have_the_confidences_that_follow_from_their_tokens(tmp_path):
    path = tmp_path / "generations.parquet"
    pq.write_table(ROWS.drop_columns(list(ADDED_LATER)), path)
    table, _ = read_generations(path)
    assert table.column("token_probability").to_pylist() == ROWS.column("token_probability").to_pylist()
    assert table.column("p_true").null_count == len(table)


def test_the_first_sample_of_each_question_is_its_record(tmp_path):
    write_records(tmp_path / "records.parquet", SCHEMA.empty_table(), {})
    GENERATIONS_TABLE.write(tmp_path / "generations.parquet", ROWS, {"free": {"model": "m"}})
    run = read_saved_run(tmp_path)
    assert is_written(run.records) and not is_written(SCHEMA.empty_table()) and set(run.made_from) == {"free"}
    rows = run.records.to_pylist()
    assert [row["doc_id"] for row in rows] == [0, 1] and [row["correct"] for row in rows] == [True, False]
    assert [row["choice_logprobs"] for row in rows] == [[pytest.approx(-0.4)], [pytest.approx(-1.0)]]
    assert [row["choice_tokens"] for row in rows] == [[2], [1]] and [row["token_entropy"] for row in rows] == [0.75, 0.5]


def test_answers_of_two_models_are_joined_by_their_question():
    other = answer_units(written(["cat", "fox"], [False, True], [[-0.2], [-0.2]]))
    joined = join(answer_units(ROWS), other)
    assert len(joined.quantized) == 2 and joined.baseline["answer"].to_pylist() == ["fox.", "cat."]


@pytest.mark.parametrize(
    ("records", "beside"),
    [
        ("records.parquet", "generations.parquet"),
        ("baseline.parquet", "baseline_generations.parquet"),
        ("001.parquet", "generations/001.parquet"),
    ],
)
def test_answers_and_texts_lie_beside_their_records(tmp_path, records, beside):
    assert generations_beside(tmp_path / records) == tmp_path / beside
    assert texts_beside(tmp_path / records) == tmp_path / beside.replace("generations", "texts")
