"""What a model can do is tried on itself: a hybrid, sliding windows, plain passes, and what is no language model."""

from __future__ import annotations

import logging
import random

import pytest
import torch

from benchmarks.tiny_models import build_small
from bitsure.base.errors import UserError
from bitsure.scoring.local import trial
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.passes import WAYS

TREES, COPIES, TOKENS = WAYS.values()


def few_shot_questions(examples: int, questions: int = 3) -> list:
    """Choices of questions after the same examples, of so many tokens."""
    rng = random.Random(1)
    draw = lambda n: [rng.randrange(10, 250) for _ in range(n)]  # noqa: E731
    shared = draw(examples)
    asked = [shared + draw(4 + q) for q in range(questions)]
    return [(question, draw(1 + choice)) for question in asked for choice in range(4)]


@torch.inference_mode()
def exact_logprob(model, context, continuation) -> float:
    logits = model(input_ids=torch.tensor([context + continuation[:-1]]), use_cache=False).logits[0, len(context) - 1 :]
    return sum(float(of[token]) for of, token in zip(logits.double().log_softmax(-1), continuation, strict=True))


@pytest.mark.parametrize(
    "family, examples, way",
    [
        ("gemma3_text", 40, TREES),
        ("gemma2", 40, TREES),  # it caps its logits
        ("gemma3_text", 230, COPIES),  # more than its sliding window
        ("rwkv", 40, COPIES),
        ("lfm2", 40, COPIES),
        ("mpt", 40, COPIES),  # its ALiBi takes no positions
        pytest.param("qwen3_5_text", 40, COPIES, marks=pytest.mark.slow),
        pytest.param("falcon_h1", 40, COPIES, marks=pytest.mark.slow),
        pytest.param("mamba", 200, TOKENS, marks=pytest.mark.slow),
    ],
)
def test_a_new_family_shares_prefixes_as_far_as_it_can(family, examples, way, caplog):
    model, requests = build_small(family), few_shot_questions(examples)
    with caplog.at_level(logging.INFO):
        results = LocalEngine(model, 256).score(requests)
    assert way in caplog.messages
    exact = model.double()
    for (context, continuation), scored in zip(requests, results, strict=True):
        expected = exact_logprob(exact, context, continuation)
        assert abs(scored.logprob - expected) <= 1e-4 + 1e-6 * abs(expected)


def test_what_is_shared_is_read_once_and_copied(monkeypatch):
    model, requests, passes = build_small("lfm2"), few_shot_questions(40), []
    engine = LocalEngine(model, 256)
    engine.score(requests)
    model.register_forward_pre_hook(lambda module, args, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True)
    engine.score(requests)
    assert passes[0] == (1, 40) and sum(rows * tokens for rows, tokens in passes) < 40 + 12 * 12


def test_a_model_that_reads_both_ways_is_refused():
    with pytest.raises(UserError, match=r"XLNetLMHeadModel reads the tokens after the one that it predicts"):
        trial.check_causal(build_small("xlnet"))


def test_a_model_that_needs_more_than_token_ids_is_refused(caplog):
    with caplog.at_level("INFO"), pytest.raises(UserError, match=r"gives no probabilities for a few token ids alone: .* log"):
        trial.check_causal(build_small("gemma4_unified_assistant"))
    assert "shared_kv_states" in caplog.text


def test_a_model_that_draws_random_numbers_is_refused():
    with pytest.raises(UserError, match=r"ReformerModelWithLMHead gives the same input other probabilities each time"):
        trial.padding_changes(build_small("reformer"))


def test_choices_that_turn_on_the_last_digit_are_scored_alone(caplog):
    model = build_small("deepseek_v32")  # it attends to the 8 keys of the largest index
    with caplog.at_level(logging.INFO):
        LocalEngine(model, 256).score(few_shot_questions(40, 1))
    assert "each input is run by itself" in caplog.text
