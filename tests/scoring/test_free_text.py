"""Tasks whose answers are written: the same answers, filtered and judged, as with the harness's own HFLM."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.models.load import load_model
from bitsure.scoring.generation.generation_request import Generation
from bitsure.scoring.harness import evaluate_tasks
from bitsure.scoring.hooked_lm import Journals
from bitsure.scoring.journal import Journal, ResultJournal
from bitsure.tasks.harness_tasks import load_tasks
from tests.builders.engines import hooked_lm

POCKET = Path(__file__).parents[2] / "pocket"
COMMON = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "shots.jsonl", "test": "facts.jsonl"}},
    "training_split": "train",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{context}}",
    "doc_to_target": "{{choices[label]}}",
    "metric_list": [{"metric": "exact_match"}],
}
WORD = {"function": "regex", "regex_pattern": r"(\w+)\.?$"}
NEVER = {"function": "regex", "regex_pattern": "(#)"}
TASKS = {
    "word": {
        "generation_kwargs": {"until": [".", "\n\n"], "max_gen_toks": 12},
        "filter_list": [
            {"name": "never", "filter": [NEVER, {"function": "take_first"}]},  # finds nothing, which counts as wrong
            {"name": "word", "filter": [WORD, {"function": "take_first"}]},
        ],
    },
    "endless": {"generation_kwargs": {"until": [], "max_gen_toks": 9}},  # which stops nowhere
    "across": {"generation_kwargs": {"until": ["s a", "s.", "es to", "r."], "max_gen_toks": 14}},  # not where tokens end
    "empty": {"generation_kwargs": {"until": [" "], "max_gen_toks": 5}},  # stops at once
    "long": {  # prompts beyond the context
        "doc_to_text": "{{'The king lives in a house near the lake. ' * 90 + context}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 20},
    },
    "shots": {
        "generation_kwargs": {"until": ["."], "max_gen_toks": 8},
        "num_fewshot": 3,
        "fewshot_config": {"sampler": "first_n"},
    },
}

OTHERS = {
    "default": {"generation_kwargs": {"until": []}},
    "vote": {
        "generation_kwargs": {"until": ["."], "max_gen_toks": 8, "do_sample": True, "temperature": 1.5},
        "repeats": 4,
        "filter_list": [{"name": "vote", "filter": [WORD, {"function": "majority_vote"}, {"function": "take_first"}]}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("writing")
    lines = (POCKET / "tasks" / "recall.jsonl").read_text().splitlines()
    (path / "facts.jsonl").write_text("\n".join(lines[:6]))
    (path / "shots.jsonl").write_text("\n".join(lines[20:26]))
    for name, changes in (TASKS | OTHERS).items():
        (path / f"{name}.yaml").write_text(yaml.safe_dump({"task": f"written_{name}", **COMMON, **changes}))
    return path


@pytest.fixture(scope="module")
def pocket():
    return load_model(POCKET / "models" / "pocket-1m", "float32")


def settings(folder: Path, name: str, **changes) -> TaskSettings:
    return TaskSettings(name="own", names=[f"written_{name}"], include_path=str(folder), **changes)


def evaluated(folder: Path, name: str, pocket, **changes):
    task = settings(folder, name, **changes)
    lm = hooked_lm(*pocket)
    return evaluate_tasks(load_tasks(task, task.names, None)[task.names[0]], lm, task), lm


@pytest.mark.parametrize("name", TASKS)
def test_answers_filters_and_metrics_are_those_of_hflm(folder, pocket, name):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = pocket
    result, _ = evaluated(folder, name, pocket)
    task = settings(folder, name)
    loaded = load_tasks(task, task.names, None)[task.names[0]]
    theirs = evaluate(HFLM(pretrained=model, tokenizer=tokenizer), {"tasks": loaded.tasks}, bootstrap_iters=0, log_samples=True)
    samples, own = theirs["samples"][task.names[0]], {answer.doc_id: answer for answer in result.answers}
    assert len(own) == 6 and result.records == [] and len(result.prompts) == 6
    for sample in samples:
        answer = own[sample["doc_id"]]
        assert answer.text == sample["resps"][0][0]
        hashes = ("doc_hash", "prompt_hash", "target_hash")
        assert [getattr(answer, key) for key in hashes] == [sample[key] for key in hashes]
        scores = {score["metric"]: score["value"] for score in answer.scores if score["filter"] == sample["filter"]}
        assert scores == {"exact_match": sample["exact_match"]}
    first = samples[0]["filter"]
    accuracy = sum(answer.correct for answer in own.values()) / 6
    assert accuracy == theirs["results"][task.names[0]][f"exact_match,{first}"]
    assert {answer.correct_by for answer in own.values()} == {f"exact_match,{first}"}
    assert [own[sample["doc_id"]].filtered for sample in samples[:6]] == [sample["filtered_resps"][0] for sample in samples[:6]]


def test_every_kind_of_end_is_told(folder, pocket):
    ended = {
        name: {answer.ended for answer in evaluated(folder, name, pocket)[0].answers} for name in ("endless", "empty", "word")
    }
    assert ended == {"endless": {"length"}, "empty": {"stop"}, "word": {"stop"}}
    empty, _ = evaluated(folder, "empty", pocket)
    assert all(answer.text == "" and len(answer.tokens) == len(answer.token_logprobs) >= 1 for answer in empty.answers)
    never, _ = evaluated(folder, "word", pocket)
    assert all(answer.filtered == "[invalid]" and answer.correct is False for answer in never.answers)


def test_prompts_that_do_not_fit_lose_their_beginning(folder, pocket, caplog):
    result, lm = evaluated(folder, "long", pocket)
    for answer in result.answers:
        assert answer.prompt_tokens == lm.max_length - 20 and answer.prompt_tokens_cut > 0
    assert "6 of 6 prompts, the first of them task written_long, question 0" in caplog.text


def test_an_answer_as_long_as_the_context_gets_what_the_prompt_leaves(folder, pocket, monkeypatch):
    from bitsure.scoring.hooked_lm import HookedLM

    monkeypatch.setattr(HookedLM, "max_gen_toks", 5000)
    result, lm = evaluated(folder, "default", pocket, limit=1)
    [answer] = result.answers
    assert answer.prompt_tokens + len(answer.tokens) <= lm.max_length and answer.prompt_tokens_cut == 0
    assert len(answer.tokens) == lm.max_length - answer.prompt_tokens or answer.ended == "end token"


def test_what_a_journal_has_is_not_written_again(folder, pocket, tmp_path):
    task = settings(folder, "across")

    def resumed():
        lm, paths = hooked_lm(*pocket), (tmp_path / "choices", tmp_path / "answers")
        journals = Journals(Journal(paths[0]), ResultJournal(paths[1], Generation))
        before = journals.n_results
        return evaluate_tasks(load_tasks(task, task.names, None)[task.names[0]], lm, task, journals), before, lm.tokens

    (first, none, tokens), (second, all_of_them, no_tokens) = resumed(), resumed()
    assert first == second and (none, all_of_them) == (0, 6) and tokens > no_tokens == 0


def test_several_samples_are_drawn_and_judged_together(folder, pocket):
    result, _ = evaluated(folder, "vote", pocket, limit=3)
    assert [(answer.doc_id, answer.sample) for answer in result.answers] == [(i, k) for i in range(3) for k in range(4)]
    assert len({tuple(answer.tokens) for answer in result.answers}) > 6
    assert all((answer.correct is None) == (answer.filtered is None) == (answer.sample > 0) for answer in result.answers)
    assert len(result.questions) == len(result.prompts) == 3
    again, _ = evaluated(folder, "vote", pocket, limit=3)
    assert again == result
    other, _ = evaluated(folder, "vote", pocket, limit=3, seed=7)
    assert other.answers != result.answers


def test_further_answers_are_drawn_from_the_own_distribution_and_filtered_each_by_itself(folder, pocket):
    plain, _ = evaluated(folder, "word", pocket, limit=3)
    result, lm = evaluated(folder, "word", pocket, limit=3, samples=3)
    assert [answer.tokens for answer in result.answers if not answer.is_drawn] == [answer.tokens for answer in plain.answers]
    drawn = [answer for answer in result.answers if answer.is_drawn]
    assert [(answer.doc_id, answer.sample) for answer in drawn] == [(i, k) for i in range(3) for k in (1, 2, 3)]
    assert all(answer.correct is None and answer.filtered == "[invalid]" for answer in drawn)
    requests = [answer.asked.request for answer in lm.written["written_word", 0]]
    assert [request.settings.get("temperature") for request in requests] == [None, 1.0, 1.0, 1.0]
    assert len({request.seed for request in requests}) == 4
    vote, _ = evaluated(folder, "vote", pocket, limit=2, samples=2)
    beside = [answer for answer in vote.answers if answer.is_drawn]
    assert [answer.sample for answer in beside] == [4, 5, 4, 5]  # after the four answers that the vote is taken among
    assert all(answer.filtered in ("[invalid]", answer.text.strip(" .").split()[-1]) for answer in beside)


def test_the_model_is_asked_whether_its_answer_is_true(folder, pocket):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    result, _ = evaluated(folder, "shots", pocket, limit=3, p_true=True)
    hflm = HFLM(pretrained=pocket[0], tokenizer=pocket[1])
    for answer, prompt in zip(result.answers, result.prompts, strict=True):
        question = f"Question: {prompt}\n Possible answer:{answer.text}\n Is the possible answer:\n (A) True\n (B) False\n "
        question += "The possible answer is:"
        replies = [Instance("loglikelihood", {}, (question, reply), k) for k, reply in enumerate((" True", " False"))]
        (true, _), (false, _) = hflm.loglikelihood(replies, disable_tqdm=True)
        assert answer.p_true == pytest.approx(math.exp(true) / (math.exp(true) + math.exp(false)), rel=1e-4)


def test_an_interrupted_run_goes_on_with_drawn_answers_and_with_what_was_asked_of_them(folder, pocket, tmp_path):
    task = settings(folder, "vote", limit=3, samples=2, p_true=True)

    def run():
        lm, paths = hooked_lm(*pocket), (tmp_path / "choices", tmp_path / "answers")
        journals = Journals(Journal(paths[0]), ResultJournal(paths[1], Generation))
        before = journals.n_results
        return evaluate_tasks(load_tasks(task, task.names, None)[task.names[0]], lm, task, journals), before, paths

    whole, _, paths = run()
    for path in paths:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: len(lines) // 2]))
    resumed, before, _ = run()
    assert 0 < before < 18 + 6 and resumed == whole


def test_a_task_that_judges_no_single_answer_is_refused(folder, pocket):
    from bitsure.scoring.generation.judged_answers import written_answers

    sample = {"filter": "none", "metrics": ["bleu"], "bleu": ("a", "b"), "doc_id": 0}
    with pytest.raises(UserError, match=r"task t: none of its metrics \(bleu\) is a number from 0 to 1 of each answer"):
        written_answers("t", None, [sample], {})
    shares = [{"filter": "f", "metrics": ["f1"], "f1": value, "doc_id": i} for i, value in enumerate((0.0, 0.5, 0.4))]
    fields = {"doc_hash": "", "prompt_hash": "", "target_hash": "", "target": 1, "doc": {}, "filtered_resps": ["x"]}
    _, lm = evaluated(folder, "empty", pocket)
    written = {("t", i): lm.written["written_empty", i] for i in range(3)}
    rows = written_answers("t", None, [sample | fields for sample in shares], written)
    assert [row.correct for row in rows] == [False, True, False] and rows[0].correct_by == "f1,f"
