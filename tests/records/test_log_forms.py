"""Every form of log that lm-evaluation-harness writes is read as the harness read the task, or refused with a sentence.

The logs are written by the harness itself, on documents whose right choices are known.
"""

from __future__ import annotations

import json

import pytest

from bitsure.base.errors import UserError
from bitsure.records.harness_log import read_harness_log
from bitsure.records.record import to_records
from tests.builders.harness_logs import hashed, write_log

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
N = 24


def documents():
    """Questions with 2 to 4 choices; digits stands for tasks whose choices are numbers."""
    for i in range(N):
        choices = [f"{WORDS[(i + k) % 8]} {i}" for k in range(2 + i % 3)]
        right = (i * 7 // 3) % len(choices)
        yield {
            "question": f"which animal is number {i}?",
            "choices": choices,
            "right": right,
            "digits_right": str(right),
            "answer": choices[right],
            "labels": [right, (right + 1) % len(choices)],
            "numbers": ["1", "2", "3"],
            "number": str(1 + right % 3),
            "shifted": right % 3,
            "odd": i % 3 == 0,
            "passage": f"A tale of {i // 2}.",
            "front": [f"They saw a {choice}" for choice in choices],
            "pair": [f"They saw a {choice}" for choice in choices[:2]],
            "option": 1 + right % 2,
            "ending": "in the garden.",
        }


CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_choice": "choices",
    "doc_to_target": "right",
    "metric_list": [{"metric": "acc"}],
}
FRONT = {"doc_to_text": "right", "doc_to_choice": "front", "doc_to_target": "ending"}


def read(folder, num_fewshot=0, chat_template=False, **tasks):
    """The records and the harness's own samples of one task, and its documents."""
    log = write_log(folder, list(documents()), num_fewshot, chat_template, **tasks)
    rows = to_records(read_harness_log(log)[0])
    [file] = log.glob("samples_*.jsonl")
    samples = [json.loads(line) for line in file.read_text().strip("\n").split("\n")]
    assert len(rows) == len(samples) == N
    for row, sample in zip(rows, samples, strict=True):
        if len(row.choices) > 1 and "acc" in sample:
            best = max(range(len(row.choices)), key=row.choice_logprobs.__getitem__)
            assert float(best in row.gold) == sample["acc"]
    return rows, samples


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, lambda doc: [doc["right"]]),
        ({"doc_to_target": "answer"}, lambda doc: [doc["right"]]),
        ({"doc_to_target": "{{right}}"}, lambda doc: [doc["right"]]),
        ({"doc_to_target": "labels"}, lambda doc: doc["labels"]),
        ({"doc_to_target": "{{labels}}"}, lambda doc: doc["labels"]),
        ({"doc_to_choice": "numbers", "doc_to_target": "number"}, lambda doc: [int(doc["number"]) - 1]),
        ({"doc_to_choice": "numbers", "doc_to_target": "shifted"}, lambda doc: [doc["shifted"]]),
        ({"doc_to_choice": "numbers", "doc_to_target": "{{shifted}}"}, lambda doc: [doc["shifted"]]),
        ({"doc_to_choice": ["no", "yes"], "doc_to_target": "odd"}, lambda doc: [int(doc["odd"])]),
        ({"doc_to_choice": ["True", "False"], "doc_to_target": "odd"}, lambda doc: [int(doc["odd"])]),
        ({"doc_to_choice": ["True", "False"], "doc_to_target": "{{odd}}"}, lambda doc: [int(not doc["odd"])]),
    ],
)
def test_the_right_choice_is_the_one_that_the_harness_scored(tmp_path, changes, right):
    rows, samples = read(tmp_path, questions=CHOICES | changes)
    assert [sorted(row.gold) for row in rows] == [sorted(right(sample["doc"])) for sample in samples]


@pytest.mark.parametrize("metric", ["mcc", "brier_score"])
def test_a_metric_that_is_logged_with_the_right_choice_settles_it(tmp_path, metric):
    changes = {"doc_to_choice": "numbers", "doc_to_target": "number", "metric_list": [{"metric": metric}]}
    rows, samples = read(tmp_path, questions=CHOICES | changes)
    assert [row.gold for row in rows] == [[int(sample["doc"]["number"]) - 1] for sample in samples]


@pytest.mark.parametrize("prompt", ["Q: {{question}}\nA:", ""])
@pytest.mark.parametrize("target", ["right", "answer"])
def test_unconditional_requests_are_no_choices(tmp_path, prompt, target):
    metrics = [{"metric": metric} for metric in ("acc", "acc_norm", "acc_mutual_info")]
    changes = {"doc_to_text": prompt, "doc_to_target": target, "metric_list": metrics}
    rows, samples = read(tmp_path, questions=CHOICES | changes)
    assert [row.choices for row in rows] == [sample["doc"]["choices"] for sample in samples]
    assert [row.gold for row in rows] == [[sample["doc"]["right"]] for sample in samples]


@pytest.mark.parametrize("num_fewshot", [0, 2])
@pytest.mark.parametrize("mutual", [False, True])
def test_choices_before_a_common_ending(tmp_path, num_fewshot, mutual):
    metrics = [{"metric": "acc"}, *([{"metric": "acc_mutual_info"}] if mutual else [])]
    rows, samples = read(tmp_path, num_fewshot, front=CHOICES | FRONT | {"metric_list": metrics})
    assert [row.choices for row in rows] == [sample["doc"]["front"] for sample in samples]
    assert [row.gold for row in rows] == [[sample["doc"]["right"]] for sample in samples]


def test_two_choices_before_a_common_ending_are_settled_by_the_accuracy(tmp_path):
    changes = FRONT | {"doc_to_choice": "pair", "doc_to_text": "{{option - 1}}"}  # no column has this index
    rows, samples = read(tmp_path, front=CHOICES | changes)
    assert [row.gold for row in rows] == [[sample["doc"]["option"] - 1] for sample in samples]


def test_without_an_accuracy_choices_before_a_common_ending_are_refused(tmp_path):
    log = write_log(tmp_path, list(documents()), front=CHOICES | FRONT | {"metric_list": [{"metric": "acc_norm"}]})
    with pytest.raises(UserError, match=r"line 1: the choices stand before one ending"):
        read_harness_log(log)


@pytest.mark.parametrize("delimiter", [" ", "", "\n"])
def test_prompts_with_examples_in_a_chat_template(tmp_path, delimiter):
    rows, samples = read(tmp_path, 2, chat_template=True, questions=CHOICES | {"target_delimiter": delimiter})
    assert [row.gold for row in rows] == [[sample["doc"]["right"]] for sample in samples]
    assert [[choice.strip() for choice in row.choices] for row in rows] == [sample["doc"]["choices"] for sample in samples]


def test_a_continuation(tmp_path):
    settings = {"output_type": "loglikelihood", "doc_to_text": "{{question}}", "doc_to_target": " {{answer}}"}
    rows, samples = read(tmp_path, end=settings | {"metric_list": [{"metric": "perplexity"}, {"metric": "acc"}]})
    assert [row.choices for row in rows] == [[sample["doc"]["answer"]] for sample in samples]
    assert [float(row.choice_greedy[0]) for row in rows] == [sample["acc"] for sample in samples]
    assert {tuple(row.gold) for row in rows} == {(0,)} and rows[0].words is None


def test_whole_texts(tmp_path):
    metrics = [{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    settings = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}"}
    rows, samples = read(tmp_path, texts=settings | {"metric_list": metrics})
    for row, sample in zip(rows, samples, strict=True):
        text = sample["doc"]["question"]
        assert (row.choices, row.gold, row.choice_logprobs) == ([text], [0], [hashed(text)])
        assert (row.words, row.bytes) == (len(text.split()), len(text.encode()))


def test_a_generation_is_refused_with_a_sentence(tmp_path):
    settings = {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"}
    settings |= {"metric_list": [{"metric": "exact_match"}], "generation_kwargs": {"until": ["\n"]}}
    log = write_log(tmp_path, list(documents()), written=settings)
    with pytest.raises(UserError, match="line 1: task written generated text"):
        read_harness_log(log)


def test_every_task_of_a_directory_is_read(tmp_path):
    log = write_log(tmp_path, list(documents()), one=CHOICES, two=CHOICES | {"doc_to_target": "answer"})
    assert {row.task for row in to_records(read_harness_log(log)[0])} == {"one", "two"}


def test_of_several_filters_the_first_counts(tmp_path):
    filters = [{"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "flexible")]
    log = write_log(tmp_path, list(documents()), questions=CHOICES | {"filter_list": filters})
    assert len(to_records(read_harness_log(log)[0])) == N


def test_a_target_that_may_mean_two_choices_is_refused(tmp_path):
    metrics = [{"metric": "acc_norm"}]
    changes = {"doc_to_choice": "numbers", "doc_to_target": "number", "metric_list": metrics}
    log = write_log(tmp_path, list(documents())[:1], questions=CHOICES | changes)
    with pytest.raises(UserError, match=r"line 1: the target .* may mean choice"):
        read_harness_log(log)


def test_a_log_whose_accuracy_no_reading_gives_is_refused(tmp_path):
    log = write_log(tmp_path, list(documents()), questions=CHOICES)
    [file] = log.glob("samples_*.jsonl")
    samples = [json.loads(line) for line in file.read_text().strip("\n").split("\n")]
    samples[5]["acc"] = 1.0 - samples[5]["acc"]
    file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    with pytest.raises(UserError, match=r"line 6: the log's acc of task questions is"):
        read_harness_log(log)
