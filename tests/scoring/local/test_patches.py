"""What a model does while trees run through it, and that it is afterwards as it was."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bitsure.scoring.local import forward, patches, rows
from tests.builders.families import FAMILIES, build

REQUESTS = {0: ([5, 6, 7, 8, 9], [10, 11]), 1: ([5, 6, 7, 8, 9], [12])}  # six tokens are read, two of them predict


def mlp_of(block: torch.nn.Module) -> torch.nn.Module:
    return block.fc1 if hasattr(block, "fc1") else block.mlp


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"mixtral"}))
def test_the_last_mlp_runs_where_something_is_scored(family):
    model, seen = build(family, **FAMILIES[family]), []
    assert forward.ends_with_head(model)
    blocks = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 2)
    for block in blocks:
        mlp_of(block).register_forward_hook(lambda mlp, inputs, out: seen.append(inputs[0].flatten(0, -2).shape[0]))
    trees = rows.trees(REQUESTS, 64, 10_000)
    forward.score_trees(model, trees, REQUESTS)
    assert seen == [6, 2]
    seen.clear()
    forward.score_plain(model, rows.chains(REQUESTS), REQUESTS)
    assert seen == [12, 12]  # two inputs of six and five tokens, one padded


def test_activations_are_in_place_for_a_batch_only():
    model = build("opt", **FAMILIES["opt"])
    assert forward.ends_with_head(model)
    relu, seen = model.model.decoder.layers[0].activation_fn, []
    relu.register_forward_hook(lambda module, inputs, out: seen.append(module.inplace))
    forward.score_trees(model, rows.trees(REQUESTS, 64, 10_000), REQUESTS)
    assert (seen, relu.inplace) == ([True], False)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"bloom", "falcon"}))
def test_parts_of_a_row_attend_to_what_they_see(family, monkeypatch):
    model, examples = build(family, **FAMILIES[family]), list(range(20, 50))
    requests = {i: ([*examples, 100 + i // 2], [i + 3, i + 5, 7]) for i in range(16)}  # eight questions after 30 tokens
    trees, keys = rows.trees(requests, 64, 10_000), []
    assert len(trees) == 1 and patches.takes_attention(model)
    plain, whole = forward.score_plain(model, rows.chains(requests), requests), forward.score_trees(model, trees, requests)
    real = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, *others, **settings):
        keys.append(key.shape[2])
        return real(query, key, *others, **settings)

    monkeypatch.setitem(patches.ATTENTION_PART, "cpu", 8)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    in_parts = forward.score_trees(model, trees, requests)
    assert keys[:4] == [8, 16, 24, 32]
    assert max(keys) < 45 < len(trees[0])
    assert model.config._attn_implementation == "sdpa"
    for i, one in in_parts.items():
        assert one.token_logprobs == pytest.approx(plain[i].token_logprobs, abs=2e-5)
        assert one.token_logprobs == pytest.approx(whole[i].token_logprobs, abs=2e-5)


@pytest.mark.parametrize("family", ["bloom", "falcon"])
def test_attention_of_its_own_stays_whole(family):
    model = build(family, **FAMILIES[family])
    before = model.config._attn_implementation
    assert not patches.takes_attention(model) and model.config._attn_implementation == before


def test_a_pass_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model, trees = build("opt", **FAMILIES["opt"]), rows.trees(REQUESTS, 64, 10_000)
    assert patches.takes_attention(model)
    layers = model.model.decoder.layers
    failing = layers[0].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("not enough memory")))
    monkeypatch.setitem(patches.ATTENTION_PART, "cpu", 4)
    with pytest.raises(RuntimeError, match="not enough memory"):
        forward.score_trees(model, trees, REQUESTS)
    failing.remove()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert not any(part.inplace for part in model.modules() if isinstance(part, torch.nn.ReLU))
    assert model.config._attn_implementation == "sdpa"
    assert "bitsure" not in ALL_ATTENTION_FUNCTIONS
