"""A data set in a directory is read as its files are now; errors name the columns that it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitsure.base.errors import NotInstalled, UserError
from bitsure.config.schema import TaskSettings
from tests.builders.data_sets import ASKED_TASK, question_rows, write_data_set


def load_questions(folder: Path, rows: list[dict]) -> list[str]:
    """The questions that the task reads from a mirror with these rows."""
    from bitsure.tasks.harness_tasks import load_tasks

    write_data_set(folder / "mirror", "org/asked", {"test": rows})
    (folder / "asked.yaml").write_text(ASKED_TASK)
    task = TaskSettings(name="own", names=["asked"], include_path=str(folder))
    loaded = load_tasks(task, task.names, str(folder / "mirror"))["asked"].tasks["asked"]
    return [doc["q"] for doc in loaded.eval_docs]


def test_changed_files_and_another_mirror_of_the_same_name_are_read_again(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert load_questions(first, question_rows("one")) == ["one 0", "one 1", "one 2"]
    assert load_questions(first, question_rows("changed", 2)) == ["changed 0", "changed 1"]
    assert load_questions(second, question_rows("other")) == ["other 0", "other 1", "other 2"]


def test_a_missing_column_is_named_although_data_with_it_was_read_before(tmp_path):
    load_questions(tmp_path, question_rows("one"))
    with pytest.raises(UserError) as error:
        load_questions(tmp_path, [{"question": "?", "options": ["a", "b"], "gold": 0}])
    assert "task.names: asked cannot read its data set org/asked: there is no 'q' among its splits and columns" in str(
        error.value
    )
    assert "question" in str(error.value) and "task.include_path" in str(error.value)


def test_a_package_that_a_task_needs_and_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    def broken(*given):
        raise ModuleNotFoundError("No module named 'langdetect'", name="langdetect")

    monkeypatch.setattr("lm_eval.api.task.ConfigurableTask.doc_to_text", broken)
    with pytest.raises(NotInstalled, match=r"task\.names: asked needs the Python module langdetect, which is not installed"):
        load_questions(tmp_path, question_rows("one"))


@pytest.mark.parametrize("name", [None, "bitsure.nowhere"])
def test_a_missing_module_without_a_name_or_of_bitsure_is_no_package(tmp_path, monkeypatch, name):
    def broken(*given):
        raise ModuleNotFoundError("missing", name=name)

    monkeypatch.setattr("lm_eval.api.task.ConfigurableTask.doc_to_text", broken)
    with pytest.raises(ModuleNotFoundError, match="missing"):
        load_questions(tmp_path, question_rows("one"))


@pytest.mark.parametrize("error", [AttributeError("'X' object has no attribute 'q'"), TypeError("two arguments")])
def test_an_error_that_no_document_causes_passes_through(tmp_path, monkeypatch, error):
    def broken(*given):
        raise error

    monkeypatch.setattr("lm_eval.api.task.ConfigurableTask.doc_to_text", broken)
    with pytest.raises(type(error)) as raised:
        load_questions(tmp_path, question_rows("one"))
    assert raised.value is error


def test_a_key_that_bitsure_itself_misses_is_no_column(tmp_path, monkeypatch):
    def broken(*given):
        raise KeyError("of_ours")

    monkeypatch.setattr("bitsure.hub.mirrors.origin", broken)
    with pytest.raises(KeyError, match="of_ours"):
        load_questions(tmp_path, question_rows("one"))


def test_a_target_that_is_no_choice_is_an_error_that_quotes_it(tmp_path):
    with pytest.raises(UserError, match=r"the target 'c' is none of the 2 choices \['a', 'b'\]\. .* has the columns q, "):
        load_questions(tmp_path, [{"q": "?", "options": ["a", "b"], "gold": "c"}])
