"""Records keep what was written, under the columns that other tools rely on, and rows without numbers are refused."""

from __future__ import annotations

import dataclasses

import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.records.parquet import read_prompts, read_records, write_prompts, write_records
from bitsure.records.record import cluster_of, place_of, to_records, to_table
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


def test_only_files_with_questions_about_finding_something_say_where_it_is(tmp_path):
    placed = [record([-1, -2], length=512, depth=0.25), record([-1, -2], doc_id=1)]
    write_records(tmp_path / "r.parquet", placed, {})
    schema = pq.read_schema(tmp_path / "r.parquet")
    assert (str(schema.field("length").type), str(schema.field("depth").type)) == ("int64", "double")
    assert to_records(read_records(tmp_path / "r.parquet")[0]) == placed


def test_a_place_is_what_the_document_names_by_both_numbers():
    assert place_of({"length": 512, "depth": 0.25}) == (512, 0.25) and place_of({"length": 512, "depth": 1}) == (512, 1.0)
    others = ({"length": 512}, {"length": "long", "depth": 0.5}, {"length": 512, "depth": 30}, {"length": True, "depth": 0}, "")
    assert all(place_of(document) == (None, None) for document in others)


def test_a_file_from_before_there_were_clusters_is_read(tmp_path):
    old = to_table([record([-1, -2])]).drop_columns("cluster")
    pq.write_table(old, tmp_path / "r.parquet")
    assert to_records(read_records(tmp_path / "r.parquet")[0]) == [record([-1, -2])]


def test_a_cluster_is_what_the_document_names_or_its_passage_or_its_prompt():
    person, passage = ({"cluster": "Kak", "passage": "One day."}, {"passage": "One day.", "question": "When?"})
    assert cluster_of(person, "p") == cluster_of({"cluster": "Kak"}, "q") != cluster_of(passage, "p")
    assert cluster_of(passage, "p") == cluster_of({"passage": "One day."}, "q")
    assert cluster_of({"passage": ""}, "p") == cluster_of("no document", "p") == "p"


@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_an_error_that_names_it(tmp_path, kept):
    rows = [record([-1, -2], doc_id=i) for i in range(50)]
    write_records(tmp_path / "r.parquet", rows, {})
    write_prompts(tmp_path / "p.parquet", rows, ["a prompt"] * 50)
    for name, read, what in (("r", read_records, "records"), ("p", read_prompts, "prompts")):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        with pytest.raises(UserError, match=f"{path} cannot be read as {what}"):
            read(path)


def test_a_damaged_file_is_an_error_or_reads_whole(tmp_path):
    path = tmp_path / "r.parquet"
    write_records(path, [record([-1, -2], doc_id=i) for i in range(50)], {})
    whole = path.read_bytes()
    for start in range(0, len(whole), 97):
        path.write_bytes(whole[:start] + bytes(40) + whole[start + 40 :])
        try:
            assert len(read_records(path)[0]) == 50
        except UserError as error:
            assert str(path) in str(error)


def test_columns_of_other_types_are_converted_or_refused(tmp_path):
    table = to_table([record([-1, -2])])
    path = tmp_path / "r.parquet"
    pq.write_table(table.set_column(0, "task", table["task"].cast("large_string")), path)
    assert to_records(read_records(path)[0]) == [record([-1, -2])]
    pq.write_table(table.set_column(7, "choice_logprobs", table["task"]), path)
    with pytest.raises(UserError, match="is no file of records"):
        read_records(path)


def test_rows_that_stand_twice_count_once_and_are_named(tmp_path, caplog):
    rows = [record([-1, -2], doc_id=i) for i in range(3)]
    write_records(tmp_path / "r.parquet", rows + rows[1:], {})
    assert to_records(read_records(tmp_path / "r.parquet")[0]) == rows
    assert "2 rows repeat a question" in caplog.text and "task t, question 1" in caplog.text


def test_rows_of_one_question_that_differ_are_refused(tmp_path):
    rows = [record([-1, -2], doc_id=i) for i in range(3)]
    write_records(tmp_path / "r.parquet", [*rows, record([-1, -3], doc_id=2)], {})
    with pytest.raises(UserError, match="task t, question 2 stands there more than once"):
        read_records(tmp_path / "r.parquet")


def test_a_document_that_a_task_has_twice_is_two_questions_in_one_cluster(tmp_path, caplog):
    same = {"doc_hash": "d", "prompt_hash": "p", "target_hash": "t", "cluster": cluster_of({}, "p")}
    rows = [record([-1, -2], doc_id=i, **same) for i in range(2)]
    write_records(tmp_path / "r.parquet", rows, {})
    read = to_records(read_records(tmp_path / "r.parquet")[0])
    assert read == rows and len({row.cluster for row in read}) == 1 and not caplog.text


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (record([-1.0], gold=0), "has fewer than two choices"),
        (record([-1, float("nan")]), "not finite or above 0"),
        (record([-1, float("-inf")]), "not finite or above 0"),
        (record([-1, 0.5]), "not finite or above 0"),
        (record([-1, -2], gold=[]), "has no correct choice"),
        (record([-1, -2], gold=2), "names a correct choice that does not exist"),
        (record([-1, -2], gold=[None]), "names a correct choice that does not exist"),
        (record([-1, -2], choices=[None, "b"]), "has a choice without a text"),
        (record([-1, -2], choice_tokens=[1]), "does not have one number of tokens per choice"),
        (record([-1, -2], choice_tokens=[None, 1]), "does not have one number of tokens per choice"),
        (record([-1, -2], choices=["a", "b", "c"]), "does not have one log-probability per choice"),
    ],
)
def test_rows_without_a_confidence_are_refused_by_name(tmp_path, broken, message):
    rows = [record([-1, -2], doc_id=1), dataclasses.replace(broken, doc_id=17), record([-1, -2], doc_id=3)]
    write_records(tmp_path / "r.parquet", rows, {})
    with pytest.raises(UserError, match=f"task t, question 17 .*{message}"):
        read_records(tmp_path / "r.parquet")


def test_files_that_would_fill_the_memory_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("bitsure.base.decoded_size.LARGE", 10_000)
    rows = [record([-1, -2], task="t" * 10_000, doc_id=i) for i in range(1_000)]
    write_records(tmp_path / "records.parquet", rows, {})
    with pytest.raises(UserError, match=r"records\.parquet has .* becomes .* when it is read"):
        read_records(tmp_path / "records.parquet")
    write_prompts(tmp_path / "prompts.parquet", rows, ["prompt" * 1_000] * 1_000)
    with pytest.raises(UserError, match=r"prompts\.parquet has .* becomes .* when it is read"):
        read_prompts(tmp_path / "prompts.parquet")


@pytest.mark.parametrize("metadata", [b"[1]", b"[" * 100_000, b"\xff"])
def test_records_of_which_nothing_says_what_made_them_are_refused(tmp_path, metadata):
    path = tmp_path / "r.parquet"
    pq.write_table(to_table([record([-1, -2])]).replace_schema_metadata({b"bitsure": metadata}), path)
    with pytest.raises(UserError, match=r"r\.parquet is no file of records"):
        read_records(path)


def test_a_column_name_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "r.parquet"
    write_records(path, [record([-1, -2])], {})
    path.write_bytes(path.read_bytes().replace(b"doc_hash", b"\xff\xfe_hash"))
    with pytest.raises(UserError, match=r"r\.parquet (cannot be read as records|is no file of records)"):
        read_records(path)
