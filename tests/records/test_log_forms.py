"""Every form of log that lm-evaluation-harness writes is read as the harness read the task, or refused with a sentence.

The logs are written by the harness itself, on documents whose right choices are known.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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


RIGHT = {  # task → what differs from CHOICES, and the right choices of a document
    "index": ({}, lambda doc: [doc["right"]]),
    "text": ({"doc_to_target": "answer"}, lambda doc: [doc["right"]]),
    "index_template": ({"doc_to_target": "{{right}}"}, lambda doc: [doc["right"]]),
    "several": ({"doc_to_target": "labels"}, lambda doc: doc["labels"]),
    "several_template": ({"doc_to_target": "{{labels}}"}, lambda doc: doc["labels"]),
    "number": ({"doc_to_choice": "numbers", "doc_to_target": "number"}, lambda doc: [int(doc["number"]) - 1]),
    "shifted": ({"doc_to_choice": "numbers", "doc_to_target": "shifted"}, lambda doc: [doc["shifted"]]),
    "shifted_template": ({"doc_to_choice": "numbers", "doc_to_target": "{{shifted}}"}, lambda doc: [doc["shifted"]]),
    "yes": ({"doc_to_choice": ["no", "yes"], "doc_to_target": "odd"}, lambda doc: [int(doc["odd"])]),
    "true": ({"doc_to_choice": ["True", "False"], "doc_to_target": "odd"}, lambda doc: [int(doc["odd"])]),
    "true_template": ({"doc_to_choice": ["True", "False"], "doc_to_target": "{{odd}}"}, lambda doc: [int(not doc["odd"])]),
}
SETTLED = ("mcc", "brier_score")
MUTUAL = [{"metric": metric} for metric in ("acc", "acc_norm", "acc_mutual_info")]
UNCONDITIONAL = {
    f"{kind}_{target}": {"doc_to_text": prompt, "doc_to_target": target, "metric_list": MUTUAL}
    for kind, prompt in (("prompted", "Q: {{question}}\nA:"), ("bare", ""))
    for target in ("right", "answer")
}
ENDINGS = {"ending": FRONT, "ending_mutual": FRONT | {"metric_list": [MUTUAL[0], MUTUAL[2]]}}
DELIMITERS = {"space": " ", "nothing": "", "line": "\n"}
NORMED = {"metric_list": [{"metric": "acc_norm"}]}
PERPLEXITIES = [{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
OTHERS = {
    "pair": CHOICES | FRONT | {"doc_to_choice": "pair", "doc_to_text": "{{option - 1}}"},  # no column has this index
    "continuation": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{answer}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": PERPLEXITIES,
    },
    "two_meanings": CHOICES | RIGHT["number"][0] | NORMED,
    "filtered": CHOICES
    | {"filter_list": [{"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "flexible")]},
}
REFUSED = {
    "no_accuracy": (CHOICES | FRONT | NORMED, r"line 1: the choices stand before one ending"),
    "written": (
        {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "exact_match"}],
            "generation_kwargs": {"until": ["\n"]},
        },
        "line 1: task written generated text",
    ),
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> dict[str, Path]:
    """Log → the directory that the harness wrote, which has a file of samples for each of its tasks."""
    plain = {name: CHOICES | changes for name, (changes, _) in RIGHT.items()}
    plain |= {name: plain["number"] | {"metric_list": [{"metric": name}]} for name in SETTLED}
    plain |= {name: CHOICES | changes for name, changes in (UNCONDITIONAL | ENDINGS).items()}
    endings = {name: CHOICES | changes for name, changes in ENDINGS.items()}
    chat = {name: CHOICES | {"target_delimiter": delimiter} for name, delimiter in DELIMITERS.items()}
    folder, asked = tmp_path_factory.mktemp("logs"), list(documents())
    return {
        "plain": write_log(folder / "plain", asked, **plain, **OTHERS, **{name: task for name, (task, _) in REFUSED.items()}),
        "examples": write_log(folder / "examples", asked, 2, **endings),
        "chat": write_log(folder / "chat", asked, 2, chat_template=True, **chat),
    }


@pytest.fixture
def copied(logs, tmp_path):
    """Return what copies one task of a log into a folder of its own."""

    def copy(name: str, log: str = "plain") -> Path:
        [file] = logs[log].glob(f"samples_{name}_2026*.jsonl")
        return shutil.copy(file, tmp_path / file.name)

    return copy


@pytest.fixture
def read(copied):
    """Return what reads one task of a log: its records, and the harness's own samples."""

    def read(name: str, log: str = "plain"):
        file = copied(name, log)
        rows = to_records(read_harness_log(file.parent)[0])
        samples = [json.loads(line) for line in file.read_text().strip("\n").split("\n")]
        assert len(rows) == len(samples) == N
        for row, sample in zip(rows, samples, strict=True):
            if len(row.choices) > 1 and "acc" in sample:
                best = max(range(len(row.choices)), key=row.choice_logprobs.__getitem__)
                assert float(best in row.gold) == sample["acc"]
        return rows, samples

    return read


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_choice_is_the_one_that_the_harness_scored(read, name):
    rows, samples = read(name)
    assert [sorted(row.gold) for row in rows] == [sorted(RIGHT[name][1](sample["doc"])) for sample in samples]


@pytest.mark.parametrize("name", SETTLED)
def test_a_metric_that_is_logged_with_the_right_choice_settles_it(read, name):
    rows, samples = read(name)
    assert [row.gold for row in rows] == [[int(sample["doc"]["number"]) - 1] for sample in samples]


@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_unconditional_requests_are_no_choices(read, name):
    rows, samples = read(name)
    assert [row.choices for row in rows] == [sample["doc"]["choices"] for sample in samples]
    assert [row.gold for row in rows] == [[sample["doc"]["right"]] for sample in samples]


@pytest.mark.parametrize("log", ["plain", "examples"])
@pytest.mark.parametrize("name", ENDINGS)
def test_choices_before_a_common_ending(read, name, log):
    rows, samples = read(name, log)
    assert [row.choices for row in rows] == [sample["doc"]["front"] for sample in samples]
    assert [row.gold for row in rows] == [[sample["doc"]["right"]] for sample in samples]


def test_two_choices_before_a_common_ending_are_settled_by_the_accuracy(read):
    rows, samples = read("pair")
    assert [row.gold for row in rows] == [[sample["doc"]["option"] - 1] for sample in samples]


@pytest.mark.parametrize("name", REFUSED)
def test_what_tells_no_choice_or_no_right_one_is_refused_with_a_sentence(copied, name):
    with pytest.raises(UserError, match=REFUSED[name][1]):
        read_harness_log(copied(name).parent)


@pytest.mark.parametrize("name", DELIMITERS)
def test_prompts_with_examples_in_a_chat_template(read, name):
    rows, samples = read(name, "chat")
    assert [row.gold for row in rows] == [[sample["doc"]["right"]] for sample in samples]
    assert [[choice.strip() for choice in row.choices] for row in rows] == [sample["doc"]["choices"] for sample in samples]


def test_a_continuation(read):
    rows, samples = read("continuation")
    assert [row.choices for row in rows] == [[sample["doc"]["answer"]] for sample in samples]
    assert [float(row.choice_greedy[0]) for row in rows] == [sample["acc"] for sample in samples]
    assert {tuple(row.gold) for row in rows} == {(0,)} and rows[0].words is None


def test_whole_texts(read):
    rows, samples = read("texts")
    for row, sample in zip(rows, samples, strict=True):
        text = sample["doc"]["question"]
        assert (row.choices, row.gold, row.choice_logprobs) == ([text], [0], [hashed(text)])
        assert (row.words, row.bytes) == (len(text.split()), len(text.encode()))


def test_every_task_of_a_directory_is_read(logs):
    assert {row.task for row in to_records(read_harness_log(logs["examples"])[0])} == set(ENDINGS)


def test_of_several_filters_the_first_counts(copied):
    assert len(to_records(read_harness_log(copied("filtered").parent)[0])) == N


def test_a_log_whose_accuracy_no_reading_gives_is_refused(copied):
    file = copied("index")
    samples = [json.loads(line) for line in file.read_text().strip("\n").split("\n")]
    samples[5]["acc"] = 1.0 - samples[5]["acc"]
    file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    with pytest.raises(UserError, match=r"line 6: the log's acc of task index is"):
        read_harness_log(file.parent)


def test_a_target_that_may_mean_two_choices_is_refused(copied):
    """Of more questions than one, another one tells which it means."""
    file = copied("two_meanings")
    file.write_text(file.read_text().splitlines(keepends=True)[0])
    with pytest.raises(UserError, match=r"line 1: the target .* may mean choice"):
        read_harness_log(file.parent)
