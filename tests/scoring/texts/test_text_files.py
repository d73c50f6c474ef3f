from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from bitsure.base.errors import UserError
from bitsure.config.paths import CONF
from bitsure.config.text import TextSettings
from bitsure.hub.fetching import fetch_dataset_files
from bitsure.scoring.texts.text_files import locate_text_file
from tests.builders.marks import SHARED, needs_shared
from tests.builders.texts import text_settings, write_documents


def test_a_txt_is_one_document_and_a_jsonl_one_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert locate_text_file(text_settings(tmp_path / "a.txt"), None).read().documents == ["one\n\ntwo\n"]
    assert locate_text_file(text_settings(write_documents(tmp_path, ["one", "two"])), None).read().documents == ["one", "two"]


def test_a_changed_file_has_another_key(source, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = locate_text_file(text_settings(path), None).identity(source)
    path.write_text("two")
    assert locate_text_file(text_settings(path), None).identity(source) != before


def test_the_same_content_read_otherwise_or_called_otherwise_has_another_key(source, tmp_path):
    lines, whole = write_documents(tmp_path), tmp_path / "whole.txt"
    whole.write_bytes(lines.read_bytes())
    texts = [text_settings(lines), text_settings(whole), replace(text_settings(lines), name="mine")]
    keys = [locate_text_file(text, None).identity(source) for text in texts]
    assert keys[0] != keys[1]
    assert keys[0] != keys[2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt is empty: there is nothing to score"),
        ("a.txt", b" \n\n", "a.txt is empty"),
        ("a.txt", b"\xff\xfe\x00", "a.txt cannot be read: UnicodeDecodeError"),
        ("a.jsonl", b'{"words": "a"}\n', "a.jsonl, line 1: expected a JSON object with a `text` field"),
        ("a.jsonl", b'{"text": 3}\n', "a.jsonl, line 1: expected a string as `text`, got 3"),
        ("a.parquet", b"no parquet", "a.parquet cannot be read"),
        ("a.md", b"text", r"text.path=.*a.md: the name has to end in .txt, .jsonl"),
    ],
)
def test_a_file_that_holds_no_text_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        locate_text_file(text_settings(tmp_path / name), None).read()


def test_a_path_without_a_file_is_refused():
    with pytest.raises(UserError, match=r"text.path=/no/such.txt: no such file"):
        locate_text_file(text_settings("/no/such.txt"), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "local"}, "text: needs text.path=FILE"),
        ({"path": "a.txt"}, "text=none text.path=a.txt: no text is scored. Add text=local"),
        ({"limit": 9}, "text=none text.limit=9: no text is scored"),
        ({"name": "t", "repo": "o/t", "file": "f", "limit": 0}, "text.limit=0: must be 2 or more"),
        ({"name": "t", "repo": "o/t", "file": "f", "window": 1}, "text.window=1: must be 2 or more"),
        ({"name": "t", "repo": "o/t", "file": "f", "protocol": "gtpq"}, "text.protocol=gtpq: allowed are gptq, llamacpp"),
        ({"name": "t", "repo": "o/t", "file": "f", "stride": 8}, "text.stride=8: the protocol gptq has none"),
        (
            {"name": "t", "repo": "o/t", "file": "f", "stride": 8, "window": 8, "protocol": "strided"},
            "text.stride=8: must be less than text.window=8",
        ),
    ],
)
def test_settings_that_say_no_text_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TextSettings(**settings)


@needs_shared
def test_wikitext_2_s_rows_become_its_file_again(tmp_path):
    """The data set has a row a line, and leaves out the space of blank lines."""
    raw = (SHARED / "text" / "wikitext2-raw-test.txt").read_text(encoding="utf-8")
    rows = [line if line.strip() else "" for line in raw.splitlines(keepends=True)]
    option = OmegaConf.to_container(OmegaConf.load(CONF / "text" / "wikitext2.yaml"))
    file = tmp_path / "datasets" / option["repo"] / option["file"]
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"text": rows}), file)
    text = locate_text_file(TextSettings(**option), str(tmp_path)).read()
    assert "".join(text.documents) == raw
    assert len(text.documents) == 62
    own = TextSettings(**option | {"path": str(SHARED / "text" / "wikitext2-raw-test.txt")})
    assert locate_text_file(own, None).read().parts == text.parts == rows
    assert all(document.lstrip().startswith("= ") for document in text.documents)


def test_the_penn_treebank_is_fetched_from_the_hub_s_conversion_of_it(served, tmp_path):
    option = OmegaConf.to_container(OmegaConf.load(CONF / "text" / "ptb.yaml"))
    file = tmp_path / "hub" / option["file"]
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"sentence": ["no it was n't black monday", "the exchange did n't fall"]}), file)
    served.add(option["repo"], tmp_path / "hub", "datasets", ref=option["revision"])
    mirror = tmp_path / "mirror"
    fetch_dataset_files(option["repo"], [option["file"]], mirror, ref=option["revision"])
    text = locate_text_file(TextSettings(**option), str(mirror)).read()
    assert (len(text.parts), len(text.documents)) == (2, 1)
