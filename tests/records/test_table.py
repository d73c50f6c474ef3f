from __future__ import annotations

import dataclasses

import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.records import table as records
from tests.builders.records import record


def test_records_come_back_as_written(tmp_path):
    rows = [
        record([-1.5, -2.25], gold=1),
        record([-3.0, -1.0, -0.5], gold=[0, 2], doc_id=1, token_logprobs=None, choice_tokens=None),
    ]
    records.write(tmp_path / "r.parquet", rows, {"model": "m"})
    found, made_from = records.read(tmp_path / "r.parquet")
    assert records.rows(found) == rows and made_from == {"model": "m"} and records.table(found) is found


def test_the_columns_are_the_contract(tmp_path):
    records.write(tmp_path / "r.parquet", [record([-1, -2])], {})
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
    old = records.table([record([-1, -2])]).drop_columns("cluster")
    pq.write_table(old, tmp_path / "r.parquet")
    assert records.rows(records.read(tmp_path / "r.parquet")[0]) == [record([-1, -2])]


def test_a_cluster_is_what_the_document_names_or_its_passage_or_its_prompt():
    person, passage = ({"cluster": "Kak", "passage": "One day."}, {"passage": "One day.", "question": "When?"})
    assert records.cluster_of(person, "p") == records.cluster_of({"cluster": "Kak"}, "q") != records.cluster_of(passage, "p")
    assert records.cluster_of(passage, "p") == records.cluster_of({"passage": "One day."}, "q")
    assert records.cluster_of({"passage": ""}, "p") == records.cluster_of("no document", "p") == "p"


def test_a_file_cut_short_is_an_error(tmp_path):
    path = tmp_path / "r.parquet"
    records.write(path, [record([-1, -2])], {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="cannot be read as records"):
        records.read(path)


def ids(joined):
    return list(zip(*(side["doc_id"].to_pylist() for side in (joined.baseline, joined.quantized)), strict=True))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (record([-1.0], gold=0), "has fewer than two choices"),
        (record([-1, float("nan")]), "not finite or above 0"),
        (record([-1, float("-inf")]), "not finite or above 0"),
        (record([-1, 0.5]), "not finite or above 0"),
        (record([-1, -2], gold=[]), "has no right choice"),
        (record([-1, -2], gold=2), "names a right choice that there is not"),
        (record([-1, -2], choices=["a", "b", "c"]), "has not one log-probability a choice"),
    ],
)
def test_rows_without_a_confidence_are_refused_by_name(tmp_path, broken, said):
    rows = [record([-1, -2], doc_id=1), dataclasses.replace(broken, doc_id=17), record([-1, -2], doc_id=3)]
    records.write(tmp_path / "r.parquet", rows, {})
    with pytest.raises(UserError, match=f"task t, question 17 .*{said}"):
        records.read(tmp_path / "r.parquet")


@pytest.mark.parametrize("column, said", [("doc_hash", "the documents are others"), ("prompt_hash", "the prompts are others")])
def test_nothing_joined_says_what_differs(column, said):
    full = [record([-1, -2], doc_id=i) for i in range(3)]
    with pytest.raises(UserError, match=said):
        records.join(full, [dataclasses.replace(row, **{column: "other"}) for row in full])


def test_another_number_of_choices_for_the_same_question_is_an_error():
    with pytest.raises(UserError, match="question 5: the two runs scored different numbers"):
        records.join([record([-1, -2], doc_id=5)], [record([-1, -2, -3], doc_id=5)])


def test_join_pairs_by_hashes_and_not_by_position():
    full = [record([-1, -2], doc_id=i) for i in (0, 1, 2)]
    quant = [record([-1, -3], doc_id=i) for i in (2, 1, 7)]
    joined = records.join(full, quant)
    assert ids(joined) == [(2, 2), (1, 1)] and joined.unmatched["doc_id"].to_pylist() == [7]
    assert joined.only_baseline == {"t": 1} and joined.only_quantized == {"t": 1}


def test_equal_hashes_are_paired_in_the_order_of_doc_id():
    same = {"doc_hash": "d", "prompt_hash": "p", "target_hash": "t"}
    full = [record([-1, -2], doc_id=i, **same) for i in (5, 3)]
    quant = [record([-1, -2], doc_id=i, **same) for i in (3, 5)]
    assert ids(records.join(full, quant)) == [(3, 3), (5, 5)]


def test_nothing_joined_is_an_error():
    with pytest.raises(UserError, match="is in the baseline"):
        records.join([record([-1, -2], doc_id=1)], [record([-1, -2], doc_id=2)])


def test_the_same_question_of_another_task_does_not_join():
    full, quant = [record([-1, -2], task="a"), record([-1, -2])], [record([-1, -2], task="b"), record([-1, -2])]
    joined = records.join(full, quant)
    assert len(joined.quantized) == 1 and joined.only_baseline == {"a": 1} and joined.only_quantized == {"b": 1}
