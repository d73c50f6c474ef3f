"""Records keep what was written, under the columns that other tools rely on, and rows without numbers are refused."""

from __future__ import annotations

import dataclasses

import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.records.parquet import read_records, write_records
from bitsure.records.record import cluster_of, to_records, to_table
from tests.builders.records import record


def test_records_come_back_as_written(tmp_path):
    rows = [
        record([-1.5, -2.25], gold=1),
        record([-3.0, -1.0, -0.5], gold=[0, 2], doc_id=1, token_logprobs=None, choice_tokens=None),
    ]
    write_records(tmp_path / "r.parquet", rows, {"model": "m"})
    found, made_from = read_records(tmp_path / "r.parquet")
    assert to_records(found) == rows and made_from == {"model": "m"} and to_table(found) is found


def test_the_columns_are_the_contract(tmp_path):
    write_records(tmp_path / "r.parquet", [record([-1, -2])], {})
    schema = pq.read_schema(tmp_path / "r.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "task": "string",
        "doc_id": "int64",
        "doc_hash": "string",
        "prompt_hash": "string",
        "target_hash": "string",
        "choices": "list<element: string>",
        "gold": "list<element: int32>",
        "choice_logprobs": "list<element: double>",
        "choice_tokens": "list<element: int32>",
        "choice_greedy": "list<element: bool>",
        "token_logprobs": "list<element: list<element: float>>",
        "cluster": "string",
        "words": "int64",
        "bytes": "int64",
    }


def test_a_file_from_before_there_were_clusters_is_read(tmp_path):
    old = to_table([record([-1, -2])]).drop_columns("cluster")
    pq.write_table(old, tmp_path / "r.parquet")
    assert to_records(read_records(tmp_path / "r.parquet")[0]) == [record([-1, -2])]


def test_a_cluster_is_what_the_document_names_or_its_passage_or_its_prompt():
    person, passage = ({"cluster": "Kak", "passage": "One day."}, {"passage": "One day.", "question": "When?"})
    assert cluster_of(person, "p") == cluster_of({"cluster": "Kak"}, "q") != cluster_of(passage, "p")
    assert cluster_of(passage, "p") == cluster_of({"passage": "One day."}, "q")
    assert cluster_of({"passage": ""}, "p") == cluster_of("no document", "p") == "p"


def test_a_file_cut_short_is_an_error(tmp_path):
    path = tmp_path / "r.parquet"
    write_records(path, [record([-1, -2])], {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="cannot be read as records"):
        read_records(path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (record([-1.0], gold=0), "has fewer than two choices"),
        (record([-1, float("nan")]), "not finite or above 0"),
        (record([-1, float("-inf")]), "not finite or above 0"),
        (record([-1, 0.5]), "not finite or above 0"),
        (record([-1, -2], gold=[]), "has no correct choice"),
        (record([-1, -2], gold=2), "names a correct choice that does not exist"),
        (record([-1, -2], choices=["a", "b", "c"]), "does not have one log-probability per choice"),
    ],
)
def test_rows_without_a_confidence_are_refused_by_name(tmp_path, broken, message):
    rows = [record([-1, -2], doc_id=1), dataclasses.replace(broken, doc_id=17), record([-1, -2], doc_id=3)]
    write_records(tmp_path / "r.parquet", rows, {})
    with pytest.raises(UserError, match=f"task t, question 17 .*{message}"):
        read_records(tmp_path / "r.parquet")
