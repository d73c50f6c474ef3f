"""What full precision wrote, as a text: both models score its tokens after the very beginning that it wrote them after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.config.open_settings import OpenSettings
from bitsure.config.paths import PROJECT
from bitsure.models.load import load_model
from bitsure.models.tokenizers import load_tokenizer
from bitsure.records import read_prompts
from bitsure.report.divergence_section import divergence_lines
from bitsure.results import Comparison, Verdict
from bitsure.run import pipeline
from bitsure.tasks.open_questions import open_documents
from tests.builders.composing import composed
from tests.builders.sweep_commands import compose_errors

pytestmark = pytest.mark.usefixtures("blank_pictures")

TASK = """task: written_word
dataset_path: json
dataset_kwargs: {data_files: {test: FACTS}}
test_split: test
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{choices[label]}}"
metric_list: [{metric: exact_match}]
generation_kwargs: {until: ["."], max_gen_toks: 8}
filter_list: [{name: word, filter: [{function: regex, regex_pattern: '(\\w+)\\.?$'}, {function: take_first}]}]
"""


TURNS = [["What does Stel Nek eat?", "And where?"], ["Who keeps a cat?"], ["What is the weather?", "Why?"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("facts")
    facts = path / "facts.jsonl"
    facts.write_text("\n".join((PROJECT / "pocket" / "tasks" / "recall.jsonl").read_text().splitlines()[:32]))
    (path / "word.yaml").write_text(TASK.replace("FACTS", str(facts)))
    return path


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run")
    questions = path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"turns": turns}) + "\n" for turns in TURNS))
    settings = ["model=pocket-300k", "quant=rtn3", "task.names=[written_word,open_questions]", f"task.include_path={folder}"]
    settings += ["text=written", "task.preference=true", f"task.open.file={questions}", "task.open.longest=6"]
    settings += ["metric.resamples=100", "tracking.mode=disabled", "task.samples=2", f"paths.store={path / 'store'}"]
    pipeline.run(composed(*settings), path / "run")
    return path / "run"


def test_full_precision_gives_its_own_tokens_what_it_gave_them_when_it_wrote(run):
    answers = pq.read_table(run / "baseline_generations.parquet").filter(pc.field("sample") == 0)
    tokens = pq.read_table(run / "baseline_texts.parquet")
    assert set(tokens["task"].to_pylist()) == {"text/written_word/written", "text/open_questions/written"}
    own = sorted(value for logprobs in answers["token_logprobs"].to_pylist() for value in logprobs)
    assert sorted(tokens["logprob"].to_pylist()) == pytest.approx(own, abs=1e-4)
    assert np.bincount(tokens["position"]).tolist()[0] == len(answers) == 32 + len(TURNS)


def test_the_two_models_are_compared_along_its_answers_and_the_report_says_where_they_part(run):
    comparison = results.read(run / "comparison.json", Comparison)
    along, written = comparison["text/written_word/written"], comparison["written_word"]
    assert along["kl_divergence_from_token_1"].n == 32 and along["kl_divergence_from_token_1"].value > 0
    assert written["divergence/auroc"].value > 0.5 and written["self_consistency/auroc"].value is not None
    page = (run / "report.html").read_text()
    assert "word for word." in page and "from it: " in page
    assert "The first token that differs is number 1: full precision gives" in page


def test_full_precision_prefers_an_answer_as_much_as_it_finds_its_tokens_likelier_than_those_of_its_own(run):
    model, _ = load_model(PROJECT / "pocket" / "models" / "pocket-300k", "float32")
    tokenizer = load_tokenizer(PROJECT / "pocket" / "models" / "pocket-300k")
    prompts = read_prompts(run / "prompts.parquet")

    def token_logprob(answer):
        prompt = tokenizer(prompts[answer["task"], answer["doc_id"]])["input_ids"]
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *answer["tokens"]]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return logprobs.gather(1, torch.tensor(answer["tokens"])[:, None]).mean().item()

    own, other = (
        pq.read_table(run / name).filter(pc.field("sample") == 0).to_pylist()
        for name in ("baseline_generations.parquet", "generations.parquet")
    )
    differing = [(a, b) for a, b in zip(own, other, strict=True) if a["tokens"] != b["tokens"]]
    for full, quantized in differing[:5] + differing[-1:]:
        assert quantized["preference"] == pytest.approx(token_logprob(quantized) - token_logprob(full), abs=1e-4)
    assert all(b["preference"] == 0 for a, b in zip(own, other, strict=True) if a["tokens"] == b["tokens"])
    values = results.read(run / "comparison.json", Comparison)["written_word"]
    shares = [values[f"preference/{name}"].value for name in ("quantized", "full", "equal")]
    assert sum(shares) == pytest.approx(1) and values["preference/balance"].value == pytest.approx(shares[0] - shares[1])
    assert values["preference/balance"].ci_low < values["preference/balance"].ci_high <= 1


def test_answers_to_open_questions_are_neither_right_nor_wrong_and_compared_all_the_same(run):
    comparison = results.read(run / "comparison.json", Comparison)
    values = comparison["open_questions"]
    assert "accuracy" not in values and "nll" not in values and values["preference/full"].n == len(TURNS)
    assert values["divergence/identical"].n == len(TURNS) and values["answer_logprob"].value is not None
    judged, opened = sorted(
        divergence_lines({name: comparison[name] for name in ("open_questions", "written_word")}), reverse=True
    )
    assert "The harness finds" in judged and "harness" not in opened
    assert "Whether the others mean the same is not judged: the questions are open." in opened
    verdict = results.read(run / "verdict.json", Verdict)
    assert verdict.tasks["open_questions"].verdict == "not judged" and "open" in verdict.excluded["open_questions"]
    written = pq.read_table(run / "generations.parquet").filter(pc.field("task") == "open_questions")
    assert written["correct"].null_count == len(written)


def test_a_second_turn_follows_full_precisions_answer_to_the_first(run):
    settings = OpenSettings(str(run.parent / "questions.jsonl"), str(run))
    first, second = open_documents("open_second_turns", settings)
    written = pq.read_table(run / "baseline_generations.parquet").filter(pc.field("task") == "open_questions")
    answer = written["text"][0].as_py().strip()
    assert first["prompt"] == f"Question: What does Stel Nek eat?\nAnswer: {answer}\n\nQuestion: And where?\nAnswer:"
    assert second["prompt"].endswith("Question: Why?\nAnswer:")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON\n", "line 1: each line must be JSON"),
        ('{"turns": []}\n', "line 1: each line must be JSON"),
        ("", "is empty"),
        ('{"turns": ["Another?", "Why?"]}\n', "that run was asked other questions"),
        (None, "no such file"),
    ],
)
def test_files_that_hold_no_such_questions_are_refused(content, message, run, tmp_path):
    file = tmp_path / "questions.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        open_documents("open_second_turns", OpenSettings(str(file), str(run)))


def test_without_a_task_there_is_nothing_that_it_could_have_written(tmp_path):
    [error] = compose_errors("task=none", "text=written", "model=pocket-300k", f"hydra.sweep.dir={tmp_path}")
    assert "task=none text=written: there is no task to score" in error


@pytest.mark.parametrize("setting", ["text=written", "task.samples=3", "task.p_true=true"])
def test_what_is_for_written_answers_is_refused_before_anything_is_scored_if_no_task_has_any(setting, tmp_path):
    settings = ["model=pocket-300k", "task.names=[pocket_weather]", "task.limit=4", setting, "tracking.mode=disabled"]
    with pytest.raises(UserError, match=f"{setting}: of the tasks pocket_weather none has answers that the model writes"):
        pipeline.run(composed(*settings, f"paths.store={tmp_path / 'store'}"), tmp_path / "run")
    assert not (tmp_path / "store" / "records").exists()
