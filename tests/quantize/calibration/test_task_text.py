"""Calibration on the scored tasks' own training splits, through the harness."""

from __future__ import annotations

import json

import pytest

from bitsure.base.errors import UserError
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.schema import TaskSettings
from bitsure.quantize.calibration.calibration_text import CalibText, locate_text
from bitsure.quantize.calibration.windows import draw_windows
from tests.builders.marks import SHARED, needs_shared
from tests.builders.tokenizers import byte_tokenizer

CALIB = CalibSettings(name="task", kind="task", nsamples=2, seqlen=32)


def locate(names, mirror=None, include_path=None) -> CalibText:
    return locate_text(CALIB, mirror, TaskSettings(name="some", names=names, include_path=include_path and str(include_path)))


def test_own_questions_with_their_answers_and_never_a_scored_one(own_tasks):
    text = locate(["tiny_taught"], include_path=own_tasks)
    assert len(text.documents) == 20 and all("Lesson" in document for document in text.documents)
    assert text.documents[1].endswith("Lesson 1: I saw a big brown dog")
    assert text.name == "task (tiny_taught)"
    windows, held_out = draw_windows(text, CALIB, 2, byte_tokenizer(), None)
    assert windows.shape == (2, 32) and held_out.shape == (8, 32)
    with pytest.raises(
        UserError, match=r"calib=task \(tiny_taught\): the training split of tiny_taught has [\d,]+ tokens, but"
    ):
        draw_windows(text, CALIB, 2_000, byte_tokenizer(), None)


def test_a_task_without_a_training_split_is_named(own_tasks):
    with pytest.raises(UserError, match=r"calib=task: tiny_pets has no training split apart from the scored one\. Leave"):
        locate(["tiny_taught", "tiny_pets"], include_path=own_tasks)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ("{test: a.jsonl}\ntraining_split: test", "mine has no training split apart from"),
        ("{test: a.jsonl}\nfewshot_split: test\ntraining_split: train", "mine has no training split apart from"),
        ("{train: a.jsonl, test: a.jsonl}\ntraining_split: train", "all 1 training questions of mine are scored questions too"),
    ],
)
def test_the_scored_split_by_any_name_is_refused(tmp_path, files, said):
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": "I saw a", "options": ["cat", "dog"], "gold": 1}))
    (tmp_path / "mine.yaml").write_text(
        f"task: mine\ndataset_path: json\ndataset_kwargs:\n  data_files: {files}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: options\ndoc_to_target: gold\n"
        "metric_list: [{metric: acc}]\n"
    )
    with pytest.raises(UserError, match=said):
        locate(["mine"], include_path=tmp_path)


def test_the_answer_stands_where_the_task_puts_it(tmp_path):
    """Where the choices stand before one common ending, as in Winogrande."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"options": ["The cat", "The dog"], "gold": 1, "end": "barked."}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"options": ["The owl", "The fox"], "gold": 0, "end": "flew."}))
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {train: a.jsonl, test: b.jsonl}}\ntraining_split: train\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: gold\ndoc_to_choice: options\ndoc_to_target: end\n"
        "metric_list: [{metric: acc}]\n"
    )
    assert locate(["mine"], include_path=tmp_path).documents == ("The dog barked.",)


@pytest.mark.slow
@needs_shared
def test_real_tasks():
    """The mirror holds 20 training questions of each."""
    text = locate(["arc_easy", "openbookqa"], mirror=str(SHARED / "hub"))
    assert len(text.documents) == 40 and text.place == "the training split of arc_easy, openbookqa"
    assert all(document.startswith("Question: ") and "\nAnswer: " in document for document in text.documents[:20])
    assert draw_windows(text, CALIB, 2, byte_tokenizer(), None)[0].shape == (2, 32)
    assert locate(["openbookqa"], mirror=str(SHARED / "hub")).fingerprint != text.fingerprint


@pytest.mark.slow
@needs_shared
def test_real_tasks_without_training_questions_are_refused():
    with pytest.raises(UserError, match=r"truthfulqa_mc1, truthfulqa_mc2 have no training split apart from the scored one"):
        locate(["openbookqa", "truthfulqa_mc1", "truthfulqa_mc2"], mirror=str(SHARED / "hub"))
