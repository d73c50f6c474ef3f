"""Through the real harness: the same numbers as its own HFLM, and tasks that cannot be used refused."""

from __future__ import annotations

import dataclasses
import math

import pytest

from bitsure import models
from bitsure.config import Task
from bitsure.errors import UserError
from tests.conftest import SHARED, needs_shared, record

POCKET = "pocket/tasks"


@pytest.fixture(scope="module")
def harness():
    from bitsure.scoring import harness

    return harness


@pytest.fixture(scope="module")
def loaded_model(tiny_model):
    return models.load(tiny_model, "float32")


def task(names, include_path, **changes) -> Task:
    return Task(**({"name": "own", "names": names, "include_path": str(include_path)} | changes))


def test_records_hold_what_the_harness_scored(harness, loaded_model, own_tasks):
    chosen = task(["tiny_pets"], own_tasks)
    rows = harness.run(harness.load_tasks(chosen, chosen.names, None)["tiny_pets"], *loaded_model, None, lambda n: None)
    assert len(rows) == 20 and [row.doc_id for row in rows] == list(range(20))
    assert rows[4].choices == ["cat", "big brown dog", "fox"] and rows[4].gold == [1]
    for row in rows:
        for total, tokens, n in zip(row.choice_logprobs, row.token_logprobs, row.choice_tokens, strict=True):
            assert total == pytest.approx(sum(tokens)) and len(tokens) == n and total < 0
    assert len({row.prompt_hash for row in rows}) == 20


def test_log_likelihoods_are_those_of_hflm(harness, loaded_model, own_tasks):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    chosen = task(["tiny_pets"], own_tasks)
    model, tokenizer = loaded_model
    rows = harness.run(harness.load_tasks(chosen, chosen.names, None)["tiny_pets"], model, tokenizer, None, lambda n: None)
    loaded = harness.load_tasks(chosen, chosen.names, None)["tiny_pets"]
    theirs = evaluate(HFLM(pretrained=model, tokenizer=tokenizer), loaded, bootstrap_iters=0, log_samples=True)["samples"]
    for row, sample in zip(rows, theirs["tiny_pets"], strict=True):
        for ours, ours_greedy, [(expected, greedy)] in zip(
            row.choice_logprobs, row.choice_greedy, sample["resps"], strict=True
        ):
            assert abs(ours - expected) <= 1e-4 + 1e-6 * abs(expected) and ours_greedy == greedy
        assert (row.doc_hash, row.prompt_hash, row.target_hash) == (
            sample["doc_hash"],
            sample["prompt_hash"],
            sample["target_hash"],
        )


def test_limit_and_few_shot_count_reach_the_harness(harness, loaded_model, own_tasks):
    chosen = task(["tiny_pets"], own_tasks, num_fewshot=1, limit=3)
    rows = harness.run(harness.load_tasks(chosen, chosen.names, None)["tiny_pets"], *loaded_model, 3, lambda n: None)
    plain = task(["tiny_pets"], own_tasks)
    without = harness.run(harness.load_tasks(plain, plain.names, None)["tiny_pets"], *loaded_model, 3, lambda n: None)
    assert len(rows) == 3
    assert all(a.doc_hash == b.doc_hash and a.prompt_hash != b.prompt_hash for a, b in zip(rows, without, strict=True))


def test_an_unknown_task_is_refused_with_near_names(harness, own_tasks):
    with pytest.raises(UserError, match=r"no task 'arc_eezy'.*Near: .*arc_easy"):
        harness.load_tasks(task(["arc_eezy"], own_tasks), ["arc_eezy"], None)


def test_a_task_without_choices_is_refused(harness, own_tasks):
    with pytest.raises(UserError, match=r"tiny_free is of the kind generate_until: it has no choices"):
        harness.load_tasks(task(["tiny_free"], own_tasks), ["tiny_free"], None)


def test_gold_is_an_index_a_choice_or_several_and_nothing_else(harness):
    class Fake:
        multiple_input = 0

        def doc_to_target(self, doc):
            return doc["target"]

        def doc_to_text(self, doc):
            return doc["text"]

    gold = lambda target, **doc: harness._gold("t", Fake(), {"target": target, **doc}, ["a", "b", "7"])  # noqa: E731
    assert (gold(1), gold("b"), gold("7"), gold("0"), gold([0, 2])) == ([1], [1], [2], [0], [0, 2])
    for target in ("c", 3, -1, [], ["a", "c"]):
        with pytest.raises(UserError, match="is none of the 3 choices"):
            gold(target)
    Fake.multiple_input = 3
    assert gold("the common ending", text=1) == [1]


def test_a_disagreement_with_the_harness_is_an_error(harness):
    row = record([-1, -2], gold=0)
    harness._check_agreement(row, {"acc": 1.0})
    with pytest.raises(UserError, match=r"the harness.s acc is 0\.0"):
        harness._check_agreement(row, {"acc": 0.0})


def test_log_probabilities_that_are_not_finite_name_the_question(harness, loaded_model, own_tasks, monkeypatch):
    real = harness.engine.score

    def broken(*args, **kwargs):
        scored = real(*args, **kwargs)
        scored[4] = dataclasses.replace(scored[4], token_logprobs=[math.nan])
        return scored

    monkeypatch.setattr(harness.engine, "score", broken)
    chosen = task(["tiny_pets"], own_tasks)
    with pytest.raises(UserError, match="question 1: the log-probability of choice 1 is nan"):
        harness.run(harness.load_tasks(chosen, chosen.names, None)["tiny_pets"], *loaded_model, None, lambda n: None)


def test_counted_requests_are_the_choices(harness, own_tasks):
    chosen = task(["tiny_pets"], own_tasks)
    loaded = harness.load_tasks(chosen, chosen.names, None)["tiny_pets"]
    assert (harness.count_requests(loaded, None), harness.count_requests(loaded, 5)) == (60, 15)


@needs_shared
def test_real_tasks_by_name_from_a_mirror(harness, loaded_model):
    names = ["arc_easy", "boolq", "piqa", "openbookqa", "hellaswag", "truthfulqa_mc1", "truthfulqa_mc2"]
    chosen = Task(name="real", names=names, include_path=None)
    loaded = harness.load_tasks(chosen, names, str(SHARED / "hub"))
    for name in names:
        rows = harness.run(loaded[name], *loaded_model, 4, lambda n: None)  # its accuracy is checked against the harness's
        assert len(rows) == 4 and {row.task for row in rows} == {name}
        assert all(len(row.choices) == len(row.choice_logprobs) >= 2 for row in rows)
        if name == "truthfulqa_mc2":
            assert all(len(row.gold) > 1 for row in rows)


@needs_shared
def test_a_task_of_another_kind_is_refused_by_name(harness):
    chosen = Task(name="real", names=["lambada_openai"], include_path=None)
    with pytest.raises(UserError, match="lambada_openai is of the kind loglikelihood"):
        harness.load_tasks(chosen, chosen.names, str(SHARED / "hub"))
