from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.quantize.calibration.documents import find_files, read_documents

ROWS = [
    "",
    " = Boats = \n",
    "",
    " A boat floats . \n",
    " = = Sails = = \n",
    " They hold wind . \n",
    " = Trees = \n",
    " Tall . \n",
]


def write_parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_documents_of_the_four_kinds(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\nlines\n\n\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write(json.dumps({"text": "zipped"}) + "\n")
    write_parquet(tmp_path / "a.parquet", text=["one", "two"], meta=[1, 2])
    assert read_documents(tmp_path / "a.txt") == ["one", "two\nlines"]
    assert read_documents(tmp_path / "a.jsonl") == ["one", "two"]
    assert read_documents(tmp_path / "a.json.gz") == ["zipped"]
    assert read_documents(tmp_path / "a.parquet") == ["one", "two"]


def test_rows_are_joined_to_articles(tmp_path):
    path = write_parquet(tmp_path / "wiki.parquet", text=ROWS)
    assert read_documents(path, " = [^=]+ = $") == [
        "",
        " = Boats = \n\n A boat floats . \n = = Sails = = \n They hold wind . ",
        " = Trees = \n Tall . ",
    ]


@pytest.mark.parametrize("line", ['{"txt": 2}', "no json", "[1]", '{"text": null}'])
def test_a_line_that_is_no_document_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + line + "\n")
    with pytest.raises(UserError, match="line 2: expected a"):
        read_documents(tmp_path / "a.jsonl")


def test_tables_of_something_else_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected a column `text`; it has words, n"):
        read_documents(write_parquet(tmp_path / "a.parquet", words=["a"], n=[1]))
    with pytest.raises(UserError, match="row 2: expected a string as `text`, got None"):
        read_documents(write_parquet(tmp_path / "a.parquet", text=["a", None]))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json.gz", "a.parquet"])
def test_a_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 not what the name says")
    with pytest.raises(UserError, match=rf"{name} cannot be read: "):
        read_documents(tmp_path / name)


def test_missing_and_strange_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        find_files(tmp_path / "none.txt")
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(UserError, match=r"expected \.txt"):
        find_files(tmp_path / "a.pdf")
    with pytest.raises(UserError, match=r"holds no file that ends in \.txt, \.jsonl, \.json\.gz, \.parquet"):
        find_files(tmp_path)


def test_files_of_a_folder_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.txt", "a.jsonl", "sub/c.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [str(file.relative_to(tmp_path)) for file in find_files(tmp_path)] == ["a.jsonl", "b.txt", "sub/c.txt"]
