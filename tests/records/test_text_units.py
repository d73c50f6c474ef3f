"""Tokens of a text as the documents or windows that intervals resample."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bitsure.base.errors import UserError
from bitsure.records.joining import join
from bitsure.records.saved_run import read_saved_run
from bitsure.records.text_tokens import TEXT_SCHEMA, TEXTS_TABLE
from bitsure.records.text_units import text_units, unit_of
from tests.builders.texts import MADE_FROM, TASK, token_rows


def test_documents_are_the_units_of_a_text_that_has_several():
    units = text_units(token_rows(documents=[0, 0, 1, 1, 1], windows=[0, 0, 0, 1, 1]), MADE_FROM)
    assert unit_of(units) == "document"
    assert units["doc_id"].to_pylist() == [0, 1]
    assert units["choice_tokens"].to_pylist() == [[2], [3]]
    assert units["choice_logprobs"].to_pylist() == [[-1.5], [-6.0]]
    assert units["bytes"].to_pylist() == [6, 9]


def test_windows_are_the_units_of_one_document():
    units = text_units(token_rows(documents=[0] * 5, windows=[0, 0, 0, 1, 1]), MADE_FROM)
    assert unit_of(units) == "window"
    assert units["choice_tokens"].to_pylist() == [[3], [2]]


def test_units_are_joined_by_text_and_cut():
    rows = token_rows(documents=[0, 0, 1, 1, 1], windows=[0] * 5)
    assert len(join(text_units(rows, MADE_FROM), text_units(rows, MADE_FROM)).quantized) == 2
    other_window = {TASK: {"text": {"sha256": "a", "window": 9}}}
    with pytest.raises(UserError, match="the prompts differ"):
        join(text_units(rows, MADE_FROM), text_units(rows, other_window))
    other_text = {TASK: {"text": {"sha256": "b", "window": 8}}}
    with pytest.raises(UserError, match="the documents differ"):
        join(text_units(rows, MADE_FROM), text_units(rows, other_text))


def test_a_directory_with_a_text_alone_is_a_run(tmp_path):
    from bitsure.records import write_records

    write_records(tmp_path / "records.parquet", [], {})
    with pytest.raises(UserError, match=r"records.parquet holds no questions"):
        read_saved_run(tmp_path)
    TEXTS_TABLE.write(tmp_path / "texts.parquet", token_rows([0, 0, 1, 1, 1], [0] * 5), MADE_FROM)
    run = read_saved_run(tmp_path)
    assert (len(run.records), run.made_from) == (2, MADE_FROM)


def test_a_damaged_file_of_tokens_is_refused(tmp_path):
    path = tmp_path / "texts.parquet"
    TEXTS_TABLE.write(path, token_rows([0, 1], [0, 0]), MADE_FROM)
    assert TEXTS_TABLE.read(path)[0].schema == TEXT_SCHEMA
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"texts.parquet cannot be read as the tokens of a text"):
        TEXTS_TABLE.read(path)
    pa.parquet.write_table(pa.table({"task": ["a"]}), path)
    with pytest.raises(UserError, match=r"texts.parquet is no file of the tokens of a text: it lacks the columns bytes"):
        TEXTS_TABLE.read(path)
