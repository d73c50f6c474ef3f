"""Questions that are made of another task's: proposed answers, and the same in other words."""

from __future__ import annotations

import json
import re

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.models.load import load_model
from bitsure.tasks.derivation import proposed
from tests.builders.engines import scored

COLOURS = ["red", "green", "blue"]
LISTED = "'What colour has thing {{n}}?\n\n  A. {{colours[0]}}\n\n  B. {{colours[1]}}\n\n  C. {{colours[2]}}\n\n  Answer:'"
YAML = (
    "task: colours\ndataset_path: json\ndataset_kwargs: {data_files: FILE}\ntest_split: train\noutput_type: multiple_choice\n"
    f"doc_to_text: {LISTED}\n"
    "doc_to_choice: [A, B, C]\ndoc_to_target: label\nmetric_list: [{metric: acc}]\n"
)


@pytest.fixture
def colours(tmp_path):
    """Return what writes a task of 40 questions that list their options, and returns the settings that ask it as a name."""

    def write(name: str, yaml: str = YAML, num_fewshot: int = 0, **settings) -> TaskSettings:
        rows = [{"n": i, "colours": COLOURS, "label": i % 3, "letter": "ABC"[i % 3]} for i in range(40)]
        (tmp_path / "colours.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / "colours.yaml").write_text(yaml.replace("FILE", str(tmp_path / "colours.jsonl")))
        return TaskSettings(name="own", names=[name], include_path=str(tmp_path), num_fewshot=num_fewshot, **settings)

    return write


def loaded(task: TaskSettings):
    from bitsure.tasks.harness_tasks import load_tasks

    [(name, tasks)] = load_tasks(task, task.names, None).items()
    assert list(tasks.tasks) == [name]
    return tasks.tasks[name]


def test_a_proposed_answer_is_right_for_half_of_the_questions_and_stands_where_the_task_puts_it(colours):
    asked = loaded(colours("colours@self"))
    texts = {doc["n"]: asked.doc_to_text(doc) for doc in asked.eval_docs}
    answers = {n: text.partition("Answer: ")[2].partition("\n")[0] for n, text in texts.items()}
    right = {doc["n"]: answers[doc["n"]] == doc["letter"] for doc in asked.eval_docs}
    assert [asked.doc_to_target(doc) for doc in asked.eval_docs] == [0 if is_right else 1 for is_right in right.values()]
    assert all(asked.doc_to_choice(doc) == ["right", "wrong"] for doc in asked.eval_docs)  # no letter that it could copy
    assert 12 <= sum(right.values()) <= 28
    assert all(text.endswith("\nIs this answer right or wrong?\nAnswer:") for text in texts.values())
    assert texts == {doc["n"]: loaded(colours("colours@self", seed=7)).doc_to_text(doc) for doc in asked.eval_docs}


def test_wrong_proposals_are_each_wrong_choice_and_a_question_without_one_has_a_right_proposal():
    chosen = [proposed(f"question {i}", COLOURS, [1]) for i in range(300)]
    wrong = [choice for choice, is_right in chosen if not is_right]
    assert all(choice == 1 for choice, is_right in chosen if is_right) and 120 < len(wrong) < 180
    assert min(wrong.count(0), wrong.count(2)) > 50 and set(wrong) == {0, 2}
    assert all(proposed(f"question {i}", COLOURS, [0, 1, 2])[1] for i in range(10))


def test_a_proposed_answer_stands_behind_what_the_task_begins_answers_with(colours):
    asked = loaded(colours("colours@self", YAML + "gen_prefix: The letter is\n"))
    for doc in asked.eval_docs:
        assert re.search(r"Answer: The letter is [ABC]\nIs this answer right or wrong\?\nAnswer:$", asked.doc_to_text(doc))
        assert asked.doc_to_prefix(doc) is None  # the judgement begins with nothing


def test_few_shot_examples_of_proposals_are_proposals_with_their_judgement(colours, tiny_model):
    records, prompts = scored(colours("colours@self", num_fewshot=2), *load_model(tiny_model, "float32"))
    assert all(record.choices == ["right", "wrong"] and record.task == "colours@self" for record in records)
    for prompt in prompts:
        *examples, question = prompt.split("\n\nWhat colour")
        assert len(examples) == 2 and question.endswith("\nAnswer:")
        for example in examples:
            n = int(example.partition("thing ")[2].partition("?")[0])
            says_right = example.endswith("Answer: right")
            assert says_right == (example.partition("Answer: ")[2][0] == "ABC"[n % 3])


def test_the_same_option_is_the_same_choice_in_another_order(colours, tiny_model):
    for yaml in (YAML, YAML.replace("doc_to_target: label", "doc_to_target: letter")):
        records, prompts = scored(colours("colours@order", yaml), *load_model(tiny_model, "float32"))
        for record, prompt in zip(records, prompts, strict=True):  # whose accuracy agrees with the harness's
            behind = dict(line.strip().split(". ") for line in prompt.splitlines() if ". " in line)
            assert [behind[label] for label in record.choices] == COLOURS
            assert record.gold == [record.doc_id % 3]
        assert len({tuple(record.choices) for record in records}) == 5  # all orders but the one that they had


def test_choices_that_are_listed_by_their_texts_stay_as_they_are(colours):
    asked = loaded(colours("colours@order", YAML.replace("[A, B, C]", "colours")))
    for doc in asked.eval_docs:
        assert asked.doc_to_choice(doc) == COLOURS and "A. red\n  B. green" not in asked.doc_to_text(doc)


def test_a_question_with_an_option_that_names_others_is_asked_as_it_is(colours):
    yaml = YAML.replace("{{colours[2]}}", "{{''both A and B'' if n < 3 else colours[2]}}")
    asked, original = loaded(colours("colours@order", yaml)), loaded(colours("colours", yaml))
    for doc in asked.eval_docs:
        is_same = asked.doc_to_text(doc) == original.doc_to_text(doc)
        assert is_same == (doc["n"] < 3)
        assert not is_same or asked.doc_to_choice(doc) == ["A", "B", "C"]


def test_examples_before_a_twin_are_those_of_the_original(colours):
    from bitsure.tasks.few_shots import repeatable_draws

    prompts = {}
    for name in ("colours", "colours@typos", "colours@distractor"):
        asked = loaded(colours(name, num_fewshot=2))
        with repeatable_draws([asked], 1):
            prompts[name] = [asked.fewshot_context(doc, num_fewshot=2, gen_prefix=None) for doc in asked.eval_docs]
    for name in ("colours@typos", "colours@distractor"):
        for original, twin in zip(prompts["colours"], prompts[name], strict=True):
            assert original != twin and original.split("\n\n")[:2] == twin.split("\n\n")[:2]


def test_the_seed_draws_what_is_changed(colours):
    def texts(seed: int) -> list[str]:
        asked = loaded(colours("colours@distractor", seed=seed))
        return [asked.doc_to_text(doc) for doc in asked.eval_docs]

    assert texts(1) == texts(1) != texts(2)


@pytest.mark.parametrize(
    ("name", "yaml", "message"),
    [
        ("colours@typo", YAML, "behind the @ stands one of self, typos, order, distractor, not 'typo'. Did you mean typos?"),
        ("colours@self", YAML.replace("multiple_choice", "loglikelihood"), "colours is of the kind loglikelihood"),
        ("colours@order", YAML.replace("B. ", "or "), "the prompts of colours do not list their options"),
        ("colours@typos", YAML.replace(LISTED, "Is it {{n}}?"), "nothing to change in the first 20 questions"),
        ("colour@self", YAML, "there is no task 'colour'"),
    ],
)
def test_what_cannot_be_made_of_a_task_is_one_sentence(colours, name, yaml, message, some_harness_tasks):
    with pytest.raises(UserError) as error:
        loaded(colours(name, yaml))
    assert message in str(error.value) and "\n" not in str(error.value)
