"""The harness's tasks by name: what fits is loaded, what does not is refused with the reason before anything else is done."""

from __future__ import annotations

import json

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.models.load import load_model
from tests.builders.engines import hooked_lm
from tests.builders.marks import SHARED, needs_shared

pytestmark = pytest.mark.usefixtures("some_harness_tasks")

REAL = ["arc_easy", "boolq", "piqa", "openbookqa", "hellaswag", "truthfulqa_mc1", "truthfulqa_mc2", "lambada_openai"]


def load(names, include_path=None, mirror=None):
    from bitsure.tasks.harness_tasks import load_tasks

    task = TaskSettings(name="own", names=names, include_path=include_path and str(include_path))
    return load_tasks(task, names, mirror and str(mirror))


def test_an_unknown_task_is_refused_with_near_names(own_tasks):
    with pytest.raises(UserError, match=r"no task 'arc_eezy'.* Did you mean .*arc_easy"):
        load(["arc_eezy"], own_tasks)
    with pytest.raises(UserError, match=r"no task 'pocket_recall'.* The folder has tiny_code, tiny_free, "):
        load(["pocket_recall"], own_tasks)
    with pytest.raises(UserError, match=r"no task 'hendryks_ethics'.* Did you mean .*hendrycks_ethics"):  # a tag
        load(["hendryks_ethics"], own_tasks)
    with pytest.raises(UserError, match=r"include_path.*no task 'tiny_grup'.* Did you mean tiny_group"):
        load(["tiny_grup"], own_tasks)
    with pytest.raises(
        UserError, match=r"no task 'arc_eezy'\. Did you mean .*\? No task 'boolqq'\. Did you mean .*boolq"
    ):  # all at once
        load(["arc_eezy", "boolqq"], own_tasks)


def test_code_that_is_run_is_refused_and_the_rest_of_its_group_named(own_tasks, monkeypatch):
    monkeypatch.setattr("lm_eval.tasks.TaskManager.load", lambda *_: pytest.fail("data was looked for"))
    with pytest.raises(UserError, match=r"tiny_code cannot be scored: it runs the code that a model writes"):
        load(["tiny_pets", "tiny_code"], own_tasks)
    with pytest.raises(UserError, match=r"tiny_code of the group tiny_group.*'task\.names=\[tiny_pets\]'"):
        load(["tiny_group"], own_tasks)
    with pytest.raises(UserError, match=r"humaneval cannot be scored: it runs the code.*docs/tasks\.md"):
        load(["humaneval"])
    with pytest.raises(
        UserError, match=r"mmmu_val_.* and \d+ more of the group mmmu_val cannot be scored: its questions have images"
    ):
        load(["mmmu_val"])


def test_groups_and_tags_stand_for_all_of_their_tasks():
    from bitsure.tasks.task_names import members, task_manager

    manager = task_manager(None, include_defaults=True)
    assert list(members(manager, "ai2_arc")) == ["arc_challenge", "arc_easy"]
    mmlu = members(manager, "mmlu")
    assert len(mmlu) == 57 and set(mmlu.values()) == {"multiple_choice"} and "mmlu_anatomy" in mmlu
    assert members(manager, "scrolls_quality") == {"scrolls_quality": None}  # Python's own


def test_counted_requests_are_choices_continuations_and_texts(own_tasks):
    counted = {name: load([name], own_tasks)[name] for name in ("tiny_pets", "tiny_last", "tiny_pages")}

    def counts(limit: float | None) -> list[int]:
        settings = TaskSettings(name="own", names=list(counted), limit=limit)
        return [loaded.count_requests(settings) for loaded in counted.values()]

    assert counts(None) == [60, 20, 8] and counts(5) == [15, 5, 5] and counts(0.3) == [18, 6, 3]


def test_no_task_is_called_as_the_mean_over_tasks_is(own_tasks, tmp_path):
    (tmp_path / "pets.jsonl").write_text((own_tasks / "pets.jsonl").read_text())
    text = (own_tasks / "tiny_pets.yaml").read_text().replace("task: tiny_pets", "task: macro_average")
    (tmp_path / "macro.yaml").write_text(text)
    with pytest.raises(UserError, match=r"macro_average is what the mean over tasks is called\. Give the task another name"):
        load(["macro_average"], tmp_path)


@pytest.mark.parametrize(
    ("change", "missing"), [({"q": "question"}, "q"), ({"options": "answers"}, "options"), ({"gold": "right"}, "gold")]
)
def test_a_renamed_column_is_named_with_the_columns_there_are(own_tasks, tmp_path, change, missing):
    rows = [json.loads(line) for line in (own_tasks / "pets.jsonl").read_text().splitlines()]
    renamed = [{change.get(key, key): value for key, value in row.items()} for row in rows]
    (tmp_path / "pets.jsonl").write_text("\n".join(map(json.dumps, renamed)))
    (tmp_path / "tiny_pets.yaml").write_text((own_tasks / "tiny_pets.yaml").read_text())
    with pytest.raises(UserError) as error:
        load(["tiny_pets"], tmp_path)
    message = str(error.value)
    assert "tiny_pets" in message and repr(missing) in message and next(iter(change.values())) in message


def test_an_error_names_the_task_of_a_group_that_cannot_be_loaded(own_tasks, tmp_path):
    for name in ("tiny_pets", "tiny_last"):
        (tmp_path / f"{name}.yaml").write_text((own_tasks / f"{name}.yaml").read_text())
    (tmp_path / "pets.jsonl").write_text((own_tasks / "pets.jsonl").read_text())
    text = (tmp_path / "tiny_last.yaml").read_text()
    (tmp_path / "tiny_last.yaml").write_text(text.replace("pets.jsonl", "gone.jsonl"))
    (tmp_path / "both.yaml").write_text("group: both\ntask: [tiny_pets, tiny_last]\n")
    with pytest.raises(UserError, match=r"tiny_last, of the group both: .*gone\.jsonl"):
        load(["both"], tmp_path)


@needs_shared
def test_a_real_data_set_with_another_column_is_refused(tmp_path):
    import pyarrow.parquet as pq

    found = SHARED / "hub" / "datasets" / "EleutherAI" / "lambada_openai"
    [file] = found.rglob("*.parquet")
    copy = tmp_path / "datasets" / "EleutherAI" / "lambada_openai"
    (copy / file.parent.name).mkdir(parents=True)
    (copy / "README.md").write_text((found / "README.md").read_text())
    renamed = pq.read_table(file).rename_columns(["passage"]).replace_schema_metadata()  # which names the old columns
    pq.write_table(renamed, copy / file.relative_to(found))
    with pytest.raises(UserError, match=r"lambada_openai cannot read .* EleutherAI/lambada_openai \(default\): .*'text'"):
        load(["lambada_openai"], mirror=tmp_path)


@needs_shared
def test_real_tasks_by_name_from_a_mirror(tiny_model):
    from bitsure.scoring.harness import evaluate_tasks

    loaded, network = load(REAL, mirror=SHARED / "hub"), load_model(tiny_model, "float32")
    for name in REAL:
        rows, prompts, _ = evaluate_tasks(loaded[name], hooked_lm(*network), TaskSettings(name="real", names=[name], limit=4))
        assert len(rows) == len(prompts) == 4 and {row.task for row in rows} == {name}  # accuracies are checked on the way
        assert all(len(row.choices) == len(row.choice_logprobs) >= (1 if name == "lambada_openai" else 2) for row in rows)
        if name == "truthfulqa_mc2":
            assert all(len(row.gold) > 1 for row in rows)
        if name == "lambada_openai":
            assert all(row.gold == [0] and row.words is None for row in rows)
            assert all(not prompt.endswith(row.choices[0]) for row, prompt in zip(rows, prompts, strict=True))
