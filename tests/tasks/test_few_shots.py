"""No question stands among its own examples; what cannot be an example is one sentence."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.models.load import load_model
from bitsure.tasks.few_shots import ExampleSampler, warn_of_repeated_questions
from tests.builders.engines import scored

CHOICES = ["red", "blue", "green"]
YAML = (
    "task: colours\ndataset_path: json\ndataset_kwargs: {data_files: FILE}\ntest_split: train\noutput_type: multiple_choice\n"
    "doc_to_text: 'Q: {{question}}\nA:'\ndoc_to_choice: choices\ndoc_to_target: label\nmetric_list: [{metric: acc}]\n"
)


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model, "float32")


@pytest.fixture
def colours(tmp_path):
    """Return what writes a task of 12 questions, which are its examples too, with changes to its YAML and rows."""

    def write(extra: str = "", rows=None) -> TaskSettings:
        rows = rows or [{"question": f"thing {i}?", "choices": CHOICES, "label": i % 3} for i in range(12)]
        (tmp_path / "colours.jsonl").write_text("\n".join(map(json.dumps, rows)))
        yaml = YAML.replace("FILE", str(tmp_path / "colours.jsonl")).replace("{{question}}\nA", "{{question}} A")
        (tmp_path / "colours.yaml").write_text(yaml + extra)
        return TaskSettings(name="own", names=["colours"], include_path=str(tmp_path), num_fewshot=3)

    return write


def ask(model, task: TaskSettings) -> list[str]:
    """Return the prompts of the task's questions."""
    return scored(task, *model)[1]


def harness_prompts(model, task: TaskSettings) -> list[str]:
    """Return the prompts that lm-evaluation-harness itself makes with the same seed."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=task.include_path, include_defaults=False).load(task.names)
    loaded["tasks"]["colours"].set_config(key="num_fewshot", value=task.num_fewshot)
    loaded["tasks"]["colours"].set_fewshot_seed(seed=task.seed)
    results = evaluate(HFLM(pretrained=model[0], tokenizer=model[1]), loaded, bootstrap_iters=0, log_samples=True)
    return [sample["arguments"][0][0] for sample in results["samples"]["colours"]]


def repeats(prompts: list[str]) -> list[bool]:
    """Return for each prompt whether its question stands among the examples."""
    return [prompt.count(prompt[prompt.rindex("Q:") :]) > 1 for prompt in prompts]


@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_another_example_stands_for_the_question_and_all_else_is_the_harness_own(model, colours, caplog, sampler):
    task = colours(f"fewshot_config: {{sampler: {sampler}}}\n")
    theirs = harness_prompts(model, task)
    with caplog.at_level(logging.WARNING):
        ours = ask(model, task)
    n = sum(repeats(theirs))
    assert n > 0 and not any(repeats(ours))
    assert f"contain the question itself in {n} of 12 prompts; another example stands there" in caplog.text
    assert all(a == b for a, b, repeated in zip(ours, theirs, repeats(theirs), strict=True) if not repeated)
    assert all(prompt.count("Q:") == 4 and len(set(prompt.split("\n\n"))) == 4 for prompt in ours)
    assert ask(model, task) == ours


def test_the_question_is_kept_and_counted_where_that_is_asked_for(model, colours, caplog):
    task = colours()
    task.exclude_question = False
    theirs = harness_prompts(model, task)
    with caplog.at_level(logging.WARNING):
        assert ask(model, task) == theirs
    assert f"contain the question itself in {sum(repeats(theirs))} of 12 prompts; it is kept" in caplog.text


@pytest.mark.parametrize("split", ["test_split: train\nfewshot_split: train", "validation_split: train\nfewshot_split: train"])
def test_it_does_not_matter_how_the_split_is_named(model, colours, split):
    task = colours()
    file = task.include_path + "/colours.yaml"
    with open(file, encoding="utf-8") as opened:
        text = opened.read().replace("test_split: train", split)
    with open(file, "w", encoding="utf-8") as opened:
        opened.write(text)
    assert not any(repeats(ask(model, task)))


def test_the_same_question_from_another_split_is_noticed_and_only_that(model, colours, tmp_path, caplog):
    lessons = [{"question": f"thing {i % 3}?", "choices": CHOICES[::-1], "label": 2 - i % 3, "id": i} for i in range(9)]
    (tmp_path / "lessons.jsonl").write_text("\n".join(map(json.dumps, lessons)))
    task = colours("fewshot_split: lessons\n")
    yaml = (
        (tmp_path / "colours.yaml")
        .read_text()
        .replace("data_files: ", f"data_files: {{lessons: {tmp_path}/lessons.jsonl, train: ")
    )
    (tmp_path / "colours.yaml").write_text(yaml.replace("colours.jsonl}", "colours.jsonl}}"))
    with caplog.at_level(logging.WARNING):
        prompts = ask(model, task)
    assert not any(repeats(prompts)) and "of 12 prompts" in caplog.text
    common = [{"question": "which is right?", "choices": [f"a{i}", f"b{i}"], "label": 0} for i in range(12)]
    caplog.clear()
    assert len(ask(model, colours("fewshot_config: {sampler: first_n}\n", common))) == 12
    assert "in 3 of 12 prompts" in caplog.text  # the same words with other choices are another question


def test_more_examples_than_documents_is_one_sentence_before_a_model_is_needed(colours):
    from bitsure.tasks.harness_tasks import load_tasks

    for extra, n in (("", 12), ("", 40), ("fewshot_split: train\n", 12), ("fewshot_config: {sampler: first_n}\n", 12)):
        task = colours(extra)
        task.num_fewshot = n
        with pytest.raises(UserError, match=rf"task\.num_fewshot={n}: colours has only 11 documents .* Give at most 11"):
            load_tasks(task, task.names, None)
    task.num_fewshot = 11
    load_tasks(task, task.names, None)
    no_others = [{"question": "thing?", "choices": CHOICES, "label": 0}] * 4
    with pytest.raises(UserError, match=r"colours has only 0 documents"):
        load_tasks(colours(rows=no_others), task.names, None)


@pytest.mark.parametrize("gold", [[0, 1], [2]])
def test_answers_that_cannot_be_written_are_one_sentence(colours, gold):
    from bitsure.tasks.harness_tasks import load_tasks

    rows = [{"question": f"thing {i}?", "choices": CHOICES, "label": gold} for i in range(12)]
    task = colours(rows=rows)
    with pytest.raises(UserError, match=r"task\.num_fewshot: colours has examples whose answer is .*task\.num_fewshot=0"):
        load_tasks(task, task.names, None)


def test_the_way_that_the_refusal_names_works(model, colours):
    rows = [{"question": f"thing {i}?", "choices": CHOICES, "label": [0, 1]} for i in range(12)]
    task = colours("fewshot_config: {doc_to_target: '{{choices[label[0]]}}'}\n", rows)
    assert all(prompt.count(" red") == 3 for prompt in ask(model, task))


def test_right_choices_may_be_named_by_a_list_of_texts(model, colours):
    rows = [{"question": f"thing {i}?", "choices": CHOICES, "label": CHOICES[: i % 2 + 1]} for i in range(12)]
    records, prompts = scored(colours("", rows), *model)
    assert [record.gold for record in records] == [[0], [0, 1]] * 6
    assert all(prompt.count("A: red") == 3 for prompt in prompts)
    with pytest.raises(UserError, match=r"colours: the target \['black'\] is none of the 3 choices"):
        ask(model, colours("", [*rows, rows[0] | {"label": ["black"]}]))


def test_a_run_that_asks_two_models_warns_once(caplog):
    sampler = object.__new__(ExampleSampler)
    sampler.questions, sampler.repeated, sampler.warned = 12, 3, False
    with caplog.at_level(logging.WARNING):
        for _ in ("full precision", "quantized"):
            warn_of_repeated_questions("colours", SimpleNamespace(sampler=sampler), True)
    assert caplog.text.count("in 3 of 12 prompts") == 1
