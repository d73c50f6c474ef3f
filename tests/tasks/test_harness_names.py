"""Names of tasks are read from files alone, so that a misspelt one is named at once."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.paths import project_path
from bitsure.config.schema import TaskSettings
from bitsure.tasks import harness_names
from bitsure.tasks.harness_names import check_task_names, names_in, names_of_the_harness
from bitsure.tasks.list_command import list_names


def check(*names: str, include_path: str | None = None) -> None:
    check_task_names(TaskSettings(name="own", names=list(names), include_path=include_path))


def test_tasks_groups_and_tags_are_found_however_they_are_written(tmp_path):
    (tmp_path / "a.yaml").write_text("task: one # the first\ntag: [red, 'blue']\nmetric_list:\n  - metric: acc\n")
    (tmp_path / "_base").write_text('"task": "two"\ntag:\n  - green\n  - "grey"\nother: 1\n')
    (tmp_path / "g.yaml").write_text("group: all\ntask:\n- one\n- task: two\n")
    (tmp_path / "no.py").write_text("task: none\n")
    assert {"one", "red", "blue", "two", "green", "grey", "all"} <= names_in(tmp_path) and "none" not in names_in(tmp_path)


def test_a_misspelt_name_is_named_without_the_harness(monkeypatch, tmp_path):
    monkeypatch.setattr(harness_names, "names_of_the_harness", lambda: frozenset(["arc_easy", "arc_challenge", "piqa"]))
    with pytest.raises(UserError, match=r"no task 'arc_esy'\. Did you mean arc_easy.*`bitsure list tasks WORD` lists those"):
        check("arc_esy", "piqa")
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    check("mine", "piqa", include_path=str(tmp_path))
    with pytest.raises(UserError, match=r"no task 'mime'\. Did you mean mine.*The folder has mine\."):
        check("mime", include_path=str(tmp_path))


def test_the_embedded_folder_is_not_called_the_users(monkeypatch):
    monkeypatch.setattr(harness_names, "names_of_the_harness", lambda: frozenset(["arc_easy"]))
    with pytest.raises(UserError, match="Did you mean arc_easy") as raised:
        check("arc_esy", include_path=str(project_path("pocket/tasks")))
    assert "include_path" not in str(raised.value)


def test_a_folder_of_ones_own_without_names_is_refused_before_the_harness_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(harness_names, "names_of_the_harness", lambda: pytest.fail("the harness's files are read"))
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    with pytest.raises(UserError, match=r"^task\.include_path=\S+: give 'task\.names=\[…\]'; the folder has mine\."):
        check("pocket_recall", "pocket_capitals", include_path=str(tmp_path))


def test_names_of_conf_and_of_ones_own_folder_need_no_search(monkeypatch, tmp_path):
    monkeypatch.setattr(harness_names, "names_of_the_harness", lambda: pytest.fail("the harness's files are read"))
    (tmp_path / "mine.yaml").write_text("task: mine\n")
    check("arc_easy", "hellaswag")
    check("mine", include_path=str(tmp_path))


@pytest.mark.slow
def test_every_name_that_the_harness_knows_is_found():
    from bitsure.tasks.task_names import task_manager

    assert set(task_manager(None, include_defaults=True).all_tasks) <= names_of_the_harness()


@pytest.mark.parametrize(
    ("kind", "word", "shown"),
    [
        ("models", "opt-12", "facebook/opt-125m"),
        ("quants", "w4a8kv4", "4-bit weights, 8-bit activations, 4-bit keys and values"),
        ("quants", "mxfp4", "mxfp4 as mx"),
        ("quants", "w4kv4", "4-bit weights, activations as they are, 4-bit keys and values"),
        ("tasks", None, "`bitsure list tasks WORD`"),
        (None, None, "options of quant="),
    ],
)
def test_names_are_listed_with_what_they_are(capsys, kind, word, shown):
    list_names(kind, word)
    assert shown in " ".join(capsys.readouterr().out.split())


def test_the_harness_names_are_listed_by_a_word(capsys, monkeypatch):
    monkeypatch.setattr(
        "bitsure.tasks.list_command.names_of_the_harness",
        lambda: frozenset(["a_lambada", "alambada", "lambada_openai", "piqa"]),
    )
    list_names("tasks", "Lambada")
    assert "lambada_openai a_lambada alambada" in capsys.readouterr().out
    with pytest.raises(UserError, match="No name in tasks contains 'zzz'"):
        list_names("tasks", "zzz")


def test_a_task_that_one_file_defines_is_found_by_its_folder(monkeypatch, tmp_path):
    for name, text in {
        "a/one.yaml": "task: one  # of its own\ntag: [both, of_tags]\n",
        "a/two.yaml": "task: 'two'\ntag:\n  - both\n",
        "b/group.yaml": "group: all\ntask:\n  - one\n  - two\n",
        "b/scalar.yaml": "group: again\ntask: two\n",
        "b/twice.yaml": "task: twice\n",
        "c/twice.yaml": "task: twice\n",
        "c/both.yaml": "task: both\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(harness_names, "_files_of_the_harness", lambda: harness_names._files_by_name(tmp_path))
    assert harness_names.folder_of_task("one") == harness_names.folder_of_task("two") == tmp_path / "a"
    assert not any(map(harness_names.folder_of_task, ("all", "again", "of_tags", "both", "twice", "none")))


def test_the_harness_is_not_read_whole_for_one_of_its_tasks(monkeypatch):
    from bitsure.tasks import task_names

    def only_own(path: str | None, *, include_defaults: bool) -> None:
        assert not include_defaults, "all of the harness's files are read"

    monkeypatch.setattr(task_names, "task_manager", only_own)
    manager = task_names.find_manager(TaskSettings(name="own", names=["arc_easy"]), "arc_easy")
    assert "arc_easy" in manager.all_tasks and manager.include_path is None


@pytest.mark.slow
def test_a_folder_alone_says_of_its_tasks_what_the_whole_harness_says():
    from bitsure.tasks.task_names import find_manager, task_manager

    index = task_manager(None, include_defaults=True).task_index
    alone = [name for name in index if harness_names.folder_of_task(name)]
    assert len(alone) > 10_000
    assert [name for name in alone if index[name].yaml_path.parent != harness_names.folder_of_task(name)] == []
    for name in alone[::200]:
        assert find_manager(TaskSettings(name="own", names=[name]), name).task_index[name] == index[name]
