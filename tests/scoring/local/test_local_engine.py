"""Scores are those of the definition, whichever path they take; what cannot be scored is an error that says why."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.models.load import load_model
from bitsure.scoring.local import forward
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.requests import some_requests


def one_by_one(model, context, continuation):
    """The definition: log p(token | all before it), a forward pass for each continuation, nothing shared or padded."""
    ids = torch.tensor([context + continuation])
    with torch.no_grad():
        logprobs = model(ids).logits[0].log_softmax(-1)
    chosen = [logprobs[len(context) + i - 1, token].item() for i, token in enumerate(continuation)]
    greedy = all(logprobs[len(context) + i - 1].argmax() == token for i, token in enumerate(continuation))
    return chosen, greedy


@pytest.mark.parametrize("share", [True, False])
def test_scores_are_those_of_one_pass_each(model, share):
    requests, advanced = some_requests(), []
    results = LocalEngine(model, 128, share).score(requests, advance=advanced.append)
    for (context, continuation), scored in zip(requests, results, strict=True):
        expected, greedy = one_by_one(model, context, continuation)
        assert scored.token_logprobs == pytest.approx(expected, abs=1e-4)
        assert scored.logprob == pytest.approx(sum(expected), abs=1e-3) and scored.greedy == greedy
    assert sum(advanced) == len(requests)


def test_a_large_vocabulary_costs_no_exactness():
    """PyTorch's float32 log-softmax loses some of a long sum at every token, always in the same direction."""
    from tests.builders.families import FAMILIES, build

    model = build("llama", **FAMILIES["llama"] | {"vocab_size": 100_000, "initializer_range": 0.2})
    context, continuation = [5, 6, 7], list(range(100, 200))
    [scored] = LocalEngine(model, 128).score([(context, continuation)])
    with torch.no_grad():
        logits = model(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1]
    exact, naive = (part.log_softmax(-1)[range(100), continuation].sum().item() for part in (logits.double(), logits))
    assert abs(scored.logprob - exact) < min(1e-4, abs(naive - exact) / 3)


def test_the_likeliest_token_is_greedy(model):
    context = [10, 20, 30]
    with torch.no_grad():
        best = model(torch.tensor([context])).logits[0, -1].argmax().item()
    best_one, other = LocalEngine(model, 128).score([(context, [best]), (context, [best - 1])])
    assert best_one.greedy and not other.greedy


def test_long_contexts_lose_their_beginning_with_one_warning(model, caplog):
    context = list(range(3, 153))
    with caplog.at_level(logging.WARNING):
        long, exact, _ = LocalEngine(model, 15).score(
            [(context, [7, 8]), (context[-14:], [7, 8]), (context, [9])], "question {}".format
        )
    assert long.token_logprobs == pytest.approx(exact.token_logprobs, abs=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 inputs, the first of them question 0, were longer than 15 tokens and lost their beginning"
    ]


def test_a_continuation_longer_than_the_context_is_an_error_that_names_it(model):
    with pytest.raises(UserError, match=r"question 1: the choice alone has 20 tokens, the model's context 15"):
        LocalEngine(model, 15).score([([5], [6]), ([5], [6] * 20)], "question {}".format)


def test_a_continuation_as_long_as_the_context_is_scored(model):
    [results] = LocalEngine(model, 15).score([([5, 6, 7], [8] * 15)])
    assert results.token_logprobs == pytest.approx(one_by_one(model, [7], [8] * 15)[0], abs=1e-4)


def test_nothing_to_score_is_an_error(model):
    with pytest.raises(UserError, match=r"request 1: .*no tokens"):
        LocalEngine(model, 15).score([([5], [6]), ([5], [])])


def test_many_requests_of_one_context_are_cut_into_rows(model, monkeypatch):
    widths, real = [], forward.score_trees
    monkeypatch.setattr(forward, "score_trees", lambda m, batch, asked: widths.append(len(batch[0])) or real(m, batch, asked))
    requests = [([2], [3 + i % 200, 5 + i % 7, 9] * 4) for i in range(600)]
    results = LocalEngine(model, 128).score(requests)
    assert max(widths) <= 2048 and len(results) == 600
    assert results[37].token_logprobs == pytest.approx(one_by_one(model, *requests[37])[0], abs=1e-4)


def test_a_value_that_is_not_finite_names_the_question_and_the_layer(tiny_model):
    broken = load_model(tiny_model, "float32")[0]
    with torch.no_grad():
        broken.model.decoder.layers[0].fc2.bias[0] = math.inf
    for share in (True, False):
        with pytest.raises(
            UserError, match=r"question \d+: a log-probability is nan.*first layer .* model.decoder.layers.0.fc2"
        ):
            LocalEngine(broken, 128, share).score(some_requests(), "question {}".format)


def test_numbers_do_not_depend_on_what_was_scored_before(model):
    requests = some_requests(100)
    engine = LocalEngine(model, 128)
    engine.score(some_requests(200, seed=2))
    assert engine.score(requests) == LocalEngine(model, 128).score(requests)


def test_equal_requests_are_scored_once(model, monkeypatch):
    asked, real, advanced = [], forward.score_trees, []
    engine = LocalEngine(model, 128)
    engine.limits()
    monkeypatch.setattr(forward, "score_trees", lambda m, batch, all_: asked.extend(batch) or real(m, batch, all_))
    engine._choice._checked_length["trees"] = 10**6
    results = engine.score([*some_requests(20), *some_requests(20)], advance=advanced.append)
    assert results[:24] == results[24:] and sum(len(row.scored) for row in asked) == 24 and sum(advanced) == 48
