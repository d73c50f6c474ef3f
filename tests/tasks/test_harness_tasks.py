"""The harness's tasks by name: what fits is loaded, what does not is refused with the reason before anything else is done."""

from __future__ import annotations

import json

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.models import source as models
from tests.builders.marks import SHARED, needs_shared

REAL = ["arc_easy", "boolq", "piqa", "openbookqa", "hellaswag", "truthfulqa_mc1", "truthfulqa_mc2", "lambada_openai"]


@pytest.fixture(scope="module")
def tasks():
    from bitsure.tasks import harness_tasks as tasks

    return tasks


def load(tasks, names, include_path=None, mirror=None):
    chosen = TaskSettings(name="own", names=names, include_path=include_path and str(include_path))
    return tasks.load_tasks(chosen, names, mirror and str(mirror))


def test_an_unknown_task_is_refused_with_near_names(tasks, own_tasks):
    with pytest.raises(UserError, match=r"no task 'arc_eezy'.* Did you mean .*arc_easy"):
        load(tasks, ["arc_eezy"], own_tasks)
    with pytest.raises(UserError, match=r"no task 'hendryks_ethics'.* Did you mean .*hendrycks_ethics"):  # a tag
        load(tasks, ["hendryks_ethics"], own_tasks)
    with pytest.raises(UserError, match=r"include_path.*no task 'tiny_grup'.* Did you mean tiny_group"):
        load(tasks, ["tiny_grup"], own_tasks)
    with pytest.raises(
        UserError, match=r"no task 'arc_eezy'\. Did you mean .*\? No task 'boolqq'\. Did you mean .*boolq"
    ):  # all at once
        load(tasks, ["arc_eezy", "boolqq"], own_tasks)


def test_free_text_is_refused_and_the_rest_of_its_group_named(tasks, own_tasks, monkeypatch):
    monkeypatch.setattr("lm_eval.tasks.TaskManager.load", lambda *_: pytest.fail("data was looked for"))
    with pytest.raises(UserError, match=r"tiny_free is of the kind generate_until: the answer is text that the model writes"):
        load(tasks, ["tiny_pets", "tiny_free"], own_tasks)
    with pytest.raises(UserError, match=r"tiny_free of the group tiny_group.*'task\.names=\[tiny_pets\]'"):
        load(tasks, ["tiny_group"], own_tasks)
    with pytest.raises(UserError, match=r"truthfulqa_gen of the group truthfulqa .*truthfulqa_mc1,truthfulqa_mc2\]"):
        load(tasks, ["truthfulqa"])
    with pytest.raises(UserError, match=r"longbench_.* and \d+ more of the group longbench cannot be scored.*docs/tasks\.md"):
        load(tasks, ["longbench"])


def test_groups_and_tags_are_all_of_their_tasks():
    from bitsure.tasks.names import manager_with, members

    manager = manager_with(None, True)
    assert list(members(manager, "ai2_arc")) == ["arc_challenge", "arc_easy"]
    mmlu = members(manager, "mmlu")
    assert len(mmlu) == 57 and set(mmlu.values()) == {"multiple_choice"} and "mmlu_anatomy" in mmlu
    assert members(manager, "scrolls_quality") == {"scrolls_quality": None}  # Python's own


def test_gold_is_an_index_a_choice_or_several_and_nothing_else(tasks):
    import numpy as np

    class Fake:
        multiple_input, DATASET_PATH = 0, "some/data"

        def doc_to_target(self, doc):
            return doc["target"]

        def doc_to_text(self, doc):
            return doc["text"]

    gold = lambda target, **doc: tasks.gold_of("t", Fake(), {"target": target, **doc}, ["a", "b", "7"])  # noqa: E731
    assert (gold(1), gold("b"), gold("7"), gold("0"), gold([0, 2])) == ([1], [1], [2], [0], [0, 2])
    assert gold(np.int32(2)) == [2]
    for target in ("c", 3, -1, 0.5, None, [], ["a", "c"]):
        with pytest.raises(UserError, match=r"is none of the 3 choices .* has the columns target"):
            gold(target)
    Fake.multiple_input = 3
    assert gold("the common ending", text=1) == [1]
    Fake.multiple_input, Fake.DATASET_PATH = 0, "oskarvanderwal/bbq"  # all ways to say that it is not known are right
    answers = ["she", "he", *(f"unknown {i}" for i in range(10))]
    of_bbq = lambda target: tasks.gold_of("bbq", Fake(), {"target": target}, answers)  # noqa: E731
    assert (of_bbq(1), of_bbq(2)) == ([1], list(range(2, 12)))


def test_counted_requests_are_choices_continuations_and_texts(tasks, own_tasks):
    counted = {name: load(tasks, [name], own_tasks)[name] for name in ("tiny_pets", "tiny_last", "tiny_pages")}
    assert [tasks.count_requests(found, None) for found in counted.values()] == [60, 20, 8]
    assert [tasks.count_requests(found, 5) for found in counted.values()] == [15, 5, 5]


@pytest.mark.parametrize(
    ("change", "missing"), [({"q": "question"}, "q"), ({"options": "answers"}, "options"), ({"gold": "right"}, "gold")]
)
def test_changed_columns_are_named_with_those_that_there_are(tasks, own_tasks, tmp_path, change, missing):
    rows = [json.loads(line) for line in (own_tasks / "pets.jsonl").read_text().splitlines()]
    renamed = [{change.get(key, key): value for key, value in row.items()} for row in rows]
    (tmp_path / "pets.jsonl").write_text("\n".join(map(json.dumps, renamed)))
    (tmp_path / "tiny_pets.yaml").write_text((own_tasks / "tiny_pets.yaml").read_text())
    with pytest.raises(UserError) as error:
        load(tasks, ["tiny_pets"], tmp_path)
    said = str(error.value)
    assert "tiny_pets" in said and repr(missing) in said and next(iter(change.values())) in said


def test_a_group_says_which_of_its_tasks_cannot_be_had(tasks, own_tasks, tmp_path):
    for name in ("tiny_pets", "tiny_last"):
        (tmp_path / f"{name}.yaml").write_text((own_tasks / f"{name}.yaml").read_text())
    (tmp_path / "pets.jsonl").write_text((own_tasks / "pets.jsonl").read_text())
    text = (tmp_path / "tiny_last.yaml").read_text()
    (tmp_path / "tiny_last.yaml").write_text(text.replace("pets.jsonl", "gone.jsonl"))
    (tmp_path / "both.yaml").write_text("group: both\ntask: [tiny_pets, tiny_last]\n")
    with pytest.raises(UserError, match=r"tiny_last, of the group both: .*gone\.jsonl"):
        load(tasks, ["both"], tmp_path)


@needs_shared
def test_a_real_data_set_with_another_column_is_refused(tasks, tmp_path):
    import pyarrow.parquet as pq

    found = SHARED / "hub" / "datasets" / "EleutherAI" / "lambada_openai"
    [file] = found.rglob("*.parquet")
    copy = tmp_path / "datasets" / "EleutherAI" / "lambada_openai"
    (copy / file.parent.name).mkdir(parents=True)
    (copy / "README.md").write_text((found / "README.md").read_text())
    renamed = pq.read_table(file).rename_columns(["passage"]).replace_schema_metadata()  # which names the old columns
    pq.write_table(renamed, copy / file.relative_to(found))
    with pytest.raises(UserError, match=r"lambada_openai cannot read .* EleutherAI/lambada_openai \(default\): .*'text'"):
        load(tasks, ["lambada_openai"], mirror=tmp_path)


@needs_shared
def test_real_tasks_by_name_from_a_mirror(tasks, tiny_model):
    from bitsure.scoring import harness

    loaded, network = load(tasks, REAL, mirror=SHARED / "hub"), models.load(tiny_model, "float32")
    for name in REAL:
        lm = harness.HookedLM(*network, lambda n: None)
        rows, prompts = harness.run(loaded[name], lm, TaskSettings(name="real", names=[name], limit=4))
        assert len(rows) == len(prompts) == 4 and {row.task for row in rows} == {name}  # accuracies are checked on the way
        assert all(len(row.choices) == len(row.choice_logprobs) >= (1 if name == "lambada_openai" else 2) for row in rows)
        if name == "truthfulqa_mc2":
            assert all(len(row.gold) > 1 for row in rows)
        if name == "lambada_openai":
            assert all(row.gold == [0] and row.words is None for row in rows)
            assert all(not prompt.endswith(row.choices[0]) for row, prompt in zip(rows, prompts, strict=True))
