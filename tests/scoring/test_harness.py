"""Through the real harness: the same numbers as its own HFLM, and tasks that cannot be used refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.models.load import load_model
from bitsure.scoring.local.pass_choice import TOLERANCE
from tests.builders.engines import hooked_lm
from tests.builders.marks import SHARED, needs_shared

pytestmark = pytest.mark.usefixtures("blank_pictures")

ALL = TaskSettings(name="all", names=["all"])  # no limit, no template


@pytest.fixture(scope="module")
def loaded_model(tiny_model):
    return load_model(tiny_model, "float32")


def settings(names, include_path, **changes) -> TaskSettings:
    return TaskSettings(**({"name": "own", "names": names, "include_path": str(include_path)} | changes))


def load(task: TaskSettings):
    """The first of the tasks that are named."""
    from bitsure.tasks.harness_tasks import load_tasks

    return load_tasks(task, task.names, None)[task.names[0]]


def score(loaded, model_and_tokenizer, task=ALL):
    """The records of tasks."""
    from bitsure.scoring.harness import evaluate_tasks

    return evaluate_tasks(loaded, hooked_lm(*model_and_tokenizer), task)[0]


def test_records_hold_what_the_harness_scored(loaded_model, own_tasks):
    task = settings(["tiny_pets"], own_tasks)
    rows = score(load(task), loaded_model)
    assert len(rows) == 20 and [row.doc_id for row in rows] == list(range(20))
    assert rows[4].choices == ["cat", "big brown dog", "fox"] and rows[4].gold == [1]
    for row in rows:
        for total, tokens, n in zip(row.choice_logprobs, row.token_logprobs, row.choice_tokens, strict=True):
            assert total == pytest.approx(sum(tokens)) and len(tokens) == n and total < 0
    assert len({row.prompt_hash for row in rows}) == 20 and all(row.cluster == row.prompt_hash for row in rows)


def test_log_likelihoods_are_those_of_hflm(loaded_model, own_tasks):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    task = settings(["tiny_pets"], own_tasks)
    model, tokenizer = loaded_model
    rows = score(load(task), loaded_model)
    loaded = {"tasks": load(task).tasks}
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


def test_limit_and_few_shot_count_reach_the_harness(loaded_model, own_tasks):
    task = settings(["tiny_pets"], own_tasks, num_fewshot=1, limit=3)
    rows = score(load(task), loaded_model, task)
    plain = settings(["tiny_pets"], own_tasks)
    without = score(load(plain), loaded_model, replace(plain, limit=3))
    assert len(rows) == 3
    assert all(a.doc_hash == b.doc_hash and a.prompt_hash != b.prompt_hash for a, b in zip(rows, without, strict=True))


def test_what_is_wrong_names_the_task_and_the_question(tiny_model, own_tasks):
    import torch

    model, tokenizer = load_model(tiny_model, "float32")
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.bias[0] = float("nan")
    task = settings(["tiny_pets"], own_tasks)
    with pytest.raises(UserError, match=r"task tiny_pets, question \d+, choice \d: .*model.decoder.layers.1.fc1"):
        score(load(task), (model, tokenizer))


def test_rolling_and_generation_are_the_harness_own(loaded_model):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = loaded_model
    ours, theirs = hooked_lm(model, tokenizer), HFLM(pretrained=model, tokenizer=tokenizer)
    texts = ["the lazy dog " * 200, "the cat sat"]  # the first one needs more than one window
    rolling = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    for a, b in zip(ours.loglikelihood_rolling(rolling), theirs.loglikelihood_rolling(rolling), strict=True):
        assert abs(a - b) <= 1e-3 + 1e-6 * abs(b)
    asked = [Instance("generate_until", {}, ("the cat", {"until": ["."], "max_gen_toks": 5}), 0)]
    assert ours.generate_until(asked) == theirs.generate_until(asked)


def test_tokens_that_a_tokenizer_puts_around_a_text_are_not_scored(loaded_model):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    model, plain = loaded_model
    changed = copy.deepcopy(plain)
    bos = plain.bos_token_id
    texts = ["the cat sat", "the lazy dog " * 200, "", f"{plain.bos_token} the cat"]  # the second needs several windows
    rolling = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    expected = hooked_lm(model, plain).loglikelihood_rolling(rolling)
    for template in ("</s> $A", "$A </s>", "</s> $A </s>"):
        changed.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("</s>", bos)])
        ours = hooked_lm(model, changed)
        lengths = [len(plain.encode(text)) for text in texts]
        assert ours.loglikelihood_rolling(rolling)[0] == pytest.approx(expected[0], abs=1e-4)
        assert ours.loglikelihood_rolling(rolling)[2:] == pytest.approx(expected[2:], abs=1e-4)
        assert [len(ours.scored[text,].token_logprobs) for text in texts] == lengths
        theirs = HFLM(pretrained=model, tokenizer=changed).loglikelihood_rolling(rolling)
        assert hooked_lm(model, changed, score_bos=True).loglikelihood_rolling(rolling) == pytest.approx(theirs, rel=1e-5)


REAL = ["arc_easy", "boolq", "piqa", "hellaswag", "openbookqa", "truthfulqa_mc1", "truthfulqa_mc2", "lambada_openai"]


class EveryToken:
    """Stands where HFLM reports a finished request, and keeps the log-probabilities that it has just gathered."""

    def __init__(self, monkeypatch):
        import torch

        self.tokens, self._latest, real = {}, None, torch.gather

        def gather(*args, **kwargs):
            self._latest = real(*args, **kwargs)
            return self._latest

        monkeypatch.setattr(torch, "gather", gather)

    def add_partial(self, kind, request, answer):
        self.tokens[request] = self._latest.flatten().tolist()


@pytest.mark.slow
@needs_shared
def test_on_real_tasks_every_number_is_that_of_hflm(monkeypatch):
    """Real weights, real questions: tokens, sums, greedy and accuracy; a zero-shot and a few-shot pass."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from bitsure.hub.data_sets import data_sets_from

    model, tokenizer = load_model(SHARED / "hub/models/karpathy/stories260K", "float32")
    from bitsure.tasks.task_names import task_manager

    for shots in (0, 2):
        with data_sets_from(str(SHARED / "hub")):
            loaded = task_manager(None, include_defaults=True).load(REAL)
        for one in loaded["tasks"].values():
            one.set_config(key="num_fewshot", value=0 if "truthfulqa" in one.config.task else shots)

        def ask(lm, loaded=loaded):
            for one in loaded["tasks"].values():
                one.set_fewshot_seed(seed=1234)
            return evaluate(lm, loaded, limit=5, bootstrap_iters=0, log_samples=True)["samples"]

        ours = hooked_lm(model, tokenizer)
        theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
        with monkeypatch.context() as patch:
            theirs.cache_hook = every_token = EveryToken(patch)
            expected = ask(theirs)
        results = ask(ours)
        close_calls = []
        for name in REAL:
            for a, b in zip(results[name], expected[name], strict=True):
                assert a["arguments"] == b["arguments"]
                for arguments, [(x, greedy)], [(y, their_greedy)] in zip(a["arguments"], a["resps"], b["resps"], strict=True):
                    allowed = 1e-4 + 1e-6 * abs(y)
                    assert abs(x - y) <= allowed and greedy == their_greedy
                    assert ours.scored[arguments].token_logprobs == pytest.approx(every_token.tokens[arguments], abs=allowed)
                best = sorted((resps[0][0] for resps in b["resps"]), reverse=True)
                if len(best) > 1 and best[0] - best[1] <= 2e-4 + 2e-6 * abs(best[0]):
                    close_calls.append((name, a["doc_id"]))
                elif name != "truthfulqa_mc2":
                    assert a["acc"] == b["acc"]
        assert len(close_calls) <= 1, close_calls


@needs_shared
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_we_are_as_near_to_float32_as_hflm(dtype):
    """HFLM takes its softmax in the model's type, ours is in float32: the two differ, and neither is the truth."""
    import numpy as np
    from lm_eval.models.huggingface import HFLM

    path, rng = SHARED / "hub/models/karpathy/stories260K", np.random.default_rng(0)
    draw = lambda low, high: rng.integers(5, 500, rng.integers(low, high)).tolist()  # noqa: E731
    asked = [((str(i), ""), context, draw(5, 40)) for i, context in enumerate([draw(20, 90) for _ in range(20)] * 2)]

    def score(lm, dtype):
        model, tokenizer = load_model(path, dtype)
        return np.array([logprob for logprob, _ in lm(model, tokenizer)._loglikelihood_tokens(asked, disable_tqdm=True)])

    ours = lambda model, tokenizer: hooked_lm(model, tokenizer)  # noqa: E731
    theirs = lambda model, tokenizer: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)  # noqa: E731
    exact, results, expected = score(theirs, "float32"), score(ours, dtype), score(theirs, dtype)
    absolute, relative = TOLERANCE[dtype]
    assert (np.abs(results - expected) <= absolute + relative * np.abs(exact)).all()
    assert np.abs(results - exact).mean() <= 1.1 * np.abs(expected - exact).mean()


def test_a_tokenizer_without_bos_and_eos_is_refused_only_where_nothing_stands_before_a_text(loaded_model, own_tasks):
    from tests.builders.tokenizers import byte_tokenizer

    model, bare = loaded_model[0], byte_tokenizer()
    bare.bos_token = bare.eos_token = bare.pad_token = bare.unk_token = None
    task = settings(["tiny_pets"], own_tasks)
    rows, expected = score(load(task), (model, bare)), score(load(task), loaded_model)
    assert [row.choice_logprobs for row in rows] == [row.choice_logprobs for row in expected]
    pages = settings(["tiny_pages"], own_tasks)
    with pytest.raises(UserError, match=r"task tiny_pages, question 0: nothing stands before .* neither BOS nor EOS"):
        score(load(pages), (model, bare), pages)
