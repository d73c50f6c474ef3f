"""A data set of a directory is what its files are now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings

YAML = (
    "task: asked\ndataset_path: org/asked\ntest_split: test\noutput_type: multiple_choice\n"
    "doc_to_text: '{{q}}'\ndoc_to_choice: options\ndoc_to_target: gold\nmetric_list: [{metric: acc}]\n"
)
CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"


def mirror(folder: Path, rows: list[dict]) -> Path:
    data = folder / "mirror" / "datasets" / "org" / "asked"
    data.mkdir(parents=True, exist_ok=True)
    (data / "README.md").write_text(CARD)
    (data / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "asked.yaml").write_text(YAML)
    return folder / "mirror"


def asked(folder: Path, rows: list[dict]) -> list[str]:
    from bitsure.tasks import harness_tasks as tasks

    files = mirror(folder, rows)
    chosen = TaskSettings(name="own", names=["asked"], include_path=str(folder))
    loaded = tasks.load_tasks(chosen, chosen.names, str(files))["asked"]["tasks"]["asked"]
    return [doc["q"] for doc in loaded.eval_docs]


def rows(word: str, n: int = 3) -> list[dict]:
    return [{"q": f"{word} {i}", "options": ["a", "b"], "gold": i % 2} for i in range(n)]


def test_a_mirror_that_changed_and_another_of_the_same_name_are_read_anew(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert asked(first, rows("one")) == ["one 0", "one 1", "one 2"]
    assert asked(first, rows("changed", 2)) == ["changed 0", "changed 1"]
    assert asked(second, rows("other")) == ["other 0", "other 1", "other 2"]


def test_columns_that_go_are_named_although_the_old_data_was_read_before(tmp_path):
    asked(tmp_path, rows("one"))
    with pytest.raises(UserError) as error:
        asked(tmp_path, [{"question": "?", "options": ["a", "b"], "gold": 0}])
    assert "task.names: asked cannot read its data set org/asked: there is no 'q' among its splits and columns" in str(
        error.value
    )
    assert "question" in str(error.value) and "task.include_path" in str(error.value)


def test_what_is_no_matter_of_columns_says_what_it_is(tmp_path):
    with pytest.raises(UserError, match=r"the target 'c' is none of the 2 choices \['a', 'b'\]\. .* has the columns q, "):
        asked(tmp_path, [{"q": "?", "options": ["a", "b"], "gold": "c"}])
