from __future__ import annotations

import gzip
import json

import pytest
import torch

from bitsure.config import Calib
from bitsure.errors import UserError
from bitsure.quantize import calib_data
from tests.conftest import byte_tokenizer


def calib(path=None, **changes) -> Calib:
    return Calib(**({"name": "text", "path": str(path) if path else None, "nsamples": 4, "seqlen": 32} | changes))


def test_windows_are_exact_seeded_and_apart(calib_file):
    text = calib_data.locate(calib(calib_file), None)
    draw = lambda **changes: calib_data.draw_windows(text, calib(calib_file, **changes), 4, byte_tokenizer(), None)  # noqa: E731
    windows, held_out = draw()
    assert windows.shape == (4, 32) and held_out.shape == (calib_data.HELD_OUT_WINDOWS, 32)
    assert torch.equal(draw()[0], windows) and not torch.equal(draw(seed=1)[0], windows)


def test_windows_are_no_longer_than_the_context(calib_file):
    text = calib_data.locate(calib(calib_file), None)
    assert calib_data.draw_windows(text, calib(calib_file), 4, byte_tokenizer(), 16)[0].shape == (4, 16)


def test_a_short_text_says_how_much_it_has(tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    text = calib_data.locate(calib(tmp_path / "short.txt"), None)
    with pytest.raises(UserError, match=r"has \d+ tokens, but 4 windows of 32 .* need 384"):
        calib_data.draw_windows(text, calib(tmp_path / "short.txt"), 4, byte_tokenizer(), None)


def test_documents_of_the_three_kinds(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\nlines\n\n\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write(json.dumps({"text": "zipped"}) + "\n")
    assert calib_data.read_documents(tmp_path / "a.txt") == ["one", "two\nlines"]
    assert calib_data.read_documents(tmp_path / "a.jsonl") == ["one", "two"]
    assert calib_data.read_documents(tmp_path / "a.json.gz") == ["zipped"]


def test_a_line_that_is_no_document_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"txt": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        calib_data.read_documents(tmp_path / "a.jsonl")


def test_missing_and_strange_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        calib_data.locate(calib(tmp_path / "none.txt"), None)
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(UserError, match=r"expected \.txt"):
        calib_data.locate(calib(tmp_path / "a.pdf"), None)


def test_a_hub_file_comes_from_the_mirror(tmp_path):
    file = tmp_path / "datasets" / "org" / "set" / "en" / "part.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"text": "mirrored"}\n')
    found = calib_data.locate(calib(repo="org/set", file="en/part.jsonl", name="c4"), str(tmp_path))
    assert found.path == file and found.name == "c4"


def test_where_the_hub_is_not_to_be_had_it_is_an_error_or_said(tmp_path, monkeypatch):
    def unreachable(*args):
        raise UserError("no network")

    monkeypatch.setattr(calib_data.hub, "dataset_file", unreachable)
    with pytest.raises(UserError, match="calib=text"):
        calib_data.locate(calib(repo="org/set", file="f.jsonl", name="c4"), None)
    found = calib_data.locate(calib(repo="org/set", file="f.jsonl", name="c4", if_missing="pocket"), None)
    assert found.name == "pocket (c4 was not to be had)" and found.path == calib_data.POCKET_TEXT
