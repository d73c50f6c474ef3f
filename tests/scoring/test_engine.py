from __future__ import annotations

import logging

import pytest
import torch

from bitsure import models
from bitsure.errors import UserError
from bitsure.scoring import engine


@pytest.fixture(scope="module")
def model(tiny_model):
    return models.load(tiny_model, "float32")[0]


def one_by_one(model, context, continuation):
    """The definition: log p(token | all before it), a forward pass for each continuation, nothing shared or padded."""
    ids = torch.tensor([context + continuation])
    with torch.no_grad():
        logprobs = model(ids).logits[0].log_softmax(-1)
    chosen = [logprobs[len(context) + i - 1, token].item() for i, token in enumerate(continuation)]
    greedy = all(logprobs[len(context) + i - 1].argmax() == token for i, token in enumerate(continuation))
    return chosen, greedy


def test_scores_are_those_of_one_pass_each(model):
    generator = torch.Generator().manual_seed(1)
    draw = lambda n: torch.randint(3, 250, (n,), generator=generator).tolist()  # noqa: E731
    requests = [(draw(1 + i % 17), draw(1 + i % 5)) for i in range(60)]
    shared = draw(9)
    requests += [(shared, [token]) for token in (5, 6, 7)] + [(shared, [5, 6])]
    advanced = []
    for (context, continuation), scored in zip(requests, engine.score(model, requests, 128, advanced.append), strict=True):
        expected, greedy = one_by_one(model, context, continuation)
        assert scored.token_logprobs == pytest.approx(expected, abs=1e-4)
        assert scored.logprob == pytest.approx(sum(expected), abs=1e-3) and scored.greedy == greedy
    assert sum(advanced) == len(requests)


def test_the_likeliest_token_is_greedy(model):
    context = [10, 20, 30]
    with torch.no_grad():
        best = model(torch.tensor([context])).logits[0, -1].argmax().item()
    best_one, other = engine.score(model, [(context, [best]), (context, [best - 1])], 128)
    assert best_one.greedy and not other.greedy


def test_choices_of_one_token_share_one_row(model):
    rows = []
    handle = model.register_forward_hook(
        lambda m, args, kwargs, out: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    engine.score(model, [([5, 6, 7], [token]) for token in range(10, 20)], 128)
    handle.remove()
    assert rows == [1]


def test_long_contexts_lose_their_beginning_with_one_warning(model, caplog):
    context = list(range(3, 153))
    with caplog.at_level(logging.WARNING):
        long, exact = engine.score(model, [(context, [7, 8]), (context[-14:], [7, 8])], 15)
    assert long.token_logprobs == pytest.approx(exact.token_logprobs, abs=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 2 inputs were longer than 15 tokens and lost their beginning"
    ]


def test_a_continuation_longer_than_the_context_is_an_error(model):
    with pytest.raises(UserError, match="20 tokens does not fit the model's context of 15"):
        engine.score(model, [([5], [6] * 20)], 15)


def test_nothing_to_score_is_an_error(model):
    with pytest.raises(UserError, match="no tokens"):
        engine.score(model, [([5], [6]), ([5], [])], 15)


def test_batches_keep_to_the_budget_and_leave_nothing_out(monkeypatch):
    monkeypatch.setattr(engine, "BATCH_TOKENS", 100)
    rows = [tuple(range(n)) for n in (120, 60, 40, 30, 10, 10, 5)]
    batches = list(engine._batches(rows, 10))
    assert [row for batch in batches for row in batch] == rows
    assert [len(batch) for batch in batches] == [1, 1, 2, 3]
    assert all(len(batch) * len(batch[0]) <= 100 for batch in batches[1:])
