"""On a GPU every tensor of a batch lives there, and Python waits for its results alone, when the next batch is given."""

from __future__ import annotations

import pytest

from bitsure.scoring.local import forward, patches
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.rows import trees
from bitsure.scoring.local.state_copies import score_copies
from tests.builders.fake_gpu import fake_gpu
from tests.builders.families import FAMILIES, build
from tests.builders.requests import branching_questions

ASKED = branching_questions()
REQUESTS = list(ASKED.values())[:15]


@pytest.mark.parametrize(("family", "share"), [("llama", True), ("bloom", True), ("gpt2", False)])
def test_a_batch_waits_once_and_all_numbers_are_those_of_a_cpu(family, share, monkeypatch):
    model, steps = build(family, **FAMILIES[family]), []
    expected = LocalEngine(model, 256, share).score(REQUESTS)
    with fake_gpu() as gpu:
        engine = LocalEngine(model.to("cuda"), 256, share)
        engine.score(REQUESTS)  # the first call checks and probes
        engine.budget.tokens = 50 if share else 200  # so that there are several batches
        way = "score_trees" if share else "score_plain"
        run = getattr(forward, way)
        monkeypatch.setattr(forward, way, lambda *given: steps.append("given") or run(*given))
        gpu.reset()
        results = engine.score(REQUESTS, advance=lambda n: steps.append("read") if n else None)
    assert gpu.events == steps.count("given") > 2
    assert [wait for wait in gpu.waits if "masking_utils.py" not in wait] == []  # transformers' own, of plain passes
    assert not (share and gpu.waits)
    assert steps[-5:] == ["given", "read", "given", "read", "read"]  # a batch is read after the next one was given
    for result, of_cpu in zip(results, expected, strict=True):
        assert result.token_logprobs == pytest.approx(of_cpu.token_logprobs, abs=2e-5) and result.greedy == of_cpu.greedy


def test_attention_in_parts_waits_for_nothing():
    model, few = build("llama", **FAMILIES["llama"]), {i: ASKED[i] for i in list(ASKED)[:6]}
    rows = trees(few, 64, 10_000)
    expected = forward.score_trees(model, rows, few)
    with fake_gpu() as gpu:
        model.to("cuda")
        patches.takes_attention(model), forward.ends_with_head(model)  # tried once
        gpu.reset()
        scored = forward.score_trees(model, rows, few, attention_part=8)
        assert gpu.synchronizations == 0
        results = dict(scored)
    for i in few:
        assert results[i].token_logprobs == pytest.approx(expected[i].token_logprobs, abs=2e-5)


@pytest.mark.parametrize("by_token", [False, True])
def test_copies_of_a_state_are_on_the_gpu(by_token):
    model, few = build("llama", **FAMILIES["llama"]), {i: ASKED[i] for i in list(ASKED)[:6]}
    rows = trees(few, 10_000, 10_000)
    expected = score_copies(model, rows, few, by_token)
    with fake_gpu():
        scored = score_copies(model.to("cuda"), rows, few, by_token)
    for i in few:
        assert scored[i].token_logprobs == pytest.approx(expected[i].token_logprobs, abs=2e-5)
