from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.open_settings import OpenSettings
from bitsure.tasks import open_questions
from bitsure.tasks.open_questions import FIRST, SECOND, open_documents


def test_a_file_is_read_by_its_lines_whatever_stands_in_its_texts(tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text('\ufeff{"turns": ["One\u2028or\u0085two?"]}\r\n\n{"turns": ["Three?"]}\n\n', encoding="utf-8", newline="")
    assert [document["prompt"] for document in open_documents(FIRST, OpenSettings(str(file)))] == [
        "Question: One\u2028or\u0085two?\nAnswer:",
        "Question: Three?\nAnswer:",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"turns": ["Où?"]}'.encode("latin-1"), "not in UTF-8"), (b"[" * 100_000, "line 1: each line must be JSON")],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path, content, message):
    (tmp_path / "questions.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_documents(FIRST, OpenSettings(str(tmp_path / "questions.jsonl")))


def test_second_turns_that_are_left_out_are_counted(tmp_path, monkeypatch, caplog):
    (tmp_path / "questions.jsonl").write_text('{"turns": ["a", "b"]}\n{"turns": ["c", "d"]}\n{"turns": ["e"]}\n')
    monkeypatch.setattr(open_questions, "_first_answers", lambda *given: {0: "A"})
    assert len(open_documents(SECOND, OpenSettings(str(tmp_path / "questions.jsonl"), "run"))) == 1
    assert "1 of 2 second turns are left out" in caplog.text
