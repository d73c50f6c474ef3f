"""How large a model is."""

from __future__ import annotations

import pytest
import torch

from benchmarks.tiny_models import build_small
from bitsure.models.size import head_widths, keys_values_of
from tests.builders.families import FALCON, FAMILIES, UNEQUAL, build
from tests.builders.marks import needs_transformers_5

NEW_FALCON = FALCON | {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}
MODELS = {name: (name, settings) for name, settings in FAMILIES.items()} | {
    "falcon, grouped": ("falcon", NEW_FALCON),
    "falcon, every head": ("falcon", FALCON | {"alibi": False, "multi_query": False}),
    "gpt_bigcode": ("gpt_bigcode", FAMILIES["gpt2"]),
}

# Families whose layers keep a latent vector or nothing → how many numbers fewer each of four GPUs has.
LESS = {
    "deepseek_v2": 0,
    "deepseek_v3": 0,
    "deepseek_v32": 0,
    "longcat_flash": 0,
    "kimi_linear": 0,
    "qwen3_next": 32,
    "qwen4_exp": 32,
    "nemotron_h": 32,
    "lfm2": 32,
    "jamba": 32,
    "zamba2": 384,
    "gemma3n_text": 64,
}


@pytest.mark.parametrize("name", MODELS)
def test_keys_and_values_are_as_many_as_the_model_keeps(name):
    family, settings = MODELS[name]
    model = build(family, **settings)
    assert keys_values_of(model, in_transformers=True) == kept(model) > 0


def test_falcon_has_fewer_than_transformers_keeps():
    model = build("falcon", **NEW_FALCON)
    assert 2 * keys_values_of(model) == kept(model)


@needs_transformers_5
def test_layers_of_different_heads_count_each_by_its_own():
    model = build("gemma4_text", **UNEQUAL)
    assert keys_values_of(model) == kept(model) == 2 * 2 * (16 + 32)
    assert head_widths(model) == {16, 32}


@needs_transformers_5
def test_a_model_of_several_stacks_counts_the_layers_of_all():
    model = build_small("blt")
    stacks = [getattr(model.config, name) for name in model.config.sub_configs]
    assert len(stacks) == 4 and keys_values_of(model) == sum(2 * stack.num_hidden_layers * 64 for stack in stacks)


@needs_transformers_5
@pytest.mark.parametrize("family", LESS)
def test_layers_that_keep_less_than_each_heads_keys_and_values_count_what_they_keep(family):
    model = build_small(family)
    assert keys_values_of(model) == kept(model) == keys_values_of(model, gpus=4) + LESS[family]


@needs_transformers_5
@pytest.mark.parametrize("family", ["mamba", "rwkv"])
def test_a_model_without_attention_keeps_nothing_of_a_token(family):
    assert keys_values_of(build_small(family)) == 0


def kept(model) -> int:
    """The numbers that a model keeps of each of five tokens."""
    with torch.no_grad():
        cache = model(torch.tensor([[5, 6, 7, 8, 9]]), use_cache=True).past_key_values
    tensors = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values", "indexer_keys")]
    return sum(tensor.numel() for tensor in tensors if tensor is not None) // 5
