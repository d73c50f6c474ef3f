"""Activations, keys and values are rounded in every family and on every path of the scoring engine."""

from __future__ import annotations

import functools
import re

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.quantize.inference import input_transform
from bitsure.quantize.inference.hooks import InferenceRounding, attach
from bitsure.quantize.inference.keys_values import check_keys_and_values
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.targets import block_linears, find_blocks
from bitsure.quantize.weights.fake_quantize import fake_quantize
from bitsure.scoring.local import forward, rows
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.fake_gpu import fake_gpu
from tests.builders.families import FALCON, FAMILIES, UNEQUAL, build
from tests.builders.marks import needs_transformers_5
from tests.builders.quantizing import ALL, WINDOWS
from tests.builders.requests import branching_questions, lay_out

CACHED = ALL | {"falcon, ALiBi": FALCON | {"alibi": True}}  # every family has attention


def family(name: str):
    return build(name.split(",")[0], **CACHED[name])


def inputs_of(layer) -> list[torch.Tensor]:
    """What the layer reads from now on, after what is done to it."""
    seen: list[torch.Tensor] = []
    layer.register_forward_hook(lambda layer, inputs, out: seen.append(inputs[0].flatten(0, -2)))
    return seen


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=WINDOWS, use_cache=False).logits


@pytest.mark.parametrize("name", CACHED)
@torch.inference_mode()
def test_attention_reads_the_keys_and_values_it_is_given(name):
    """By K and V that change the answer: what attention would read is replaced by zeros, by itself, and by what is rounded."""
    expected = logits(family(name))
    rounded = functools.partial(fake_quantize, numbers=KeysValues(2))
    for change, far in ((lambda x: x * 0, True), (lambda x: x, False), (rounded, True)):
        for which in (0, 1):
            model, seen = family(name), []

            def some(keys, values, change=change, which=which, seen=seen):
                seen.append((keys.shape, values.shape))
                return (change(keys), values) if which == 0 else (keys, change(values))

            for block in find_blocks(model)[1]:
                InferenceRounding().on_keys_and_values(block, some)
            found = logits(model)
            moved = ((found - expected).norm() / expected.norm()).item()
            assert moved > 1e-3 if far else moved < 1e-5, (which, moved)
            assert len(seen) == len(find_blocks(model)[1])
            width = model.config.hidden_size // model.config.num_attention_heads
            assert all(shape[0] == 6 and shape[2:] == (24, width) for pair in seen for shape in pair)


@needs_transformers_5
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"mixtral"}))
def test_shared_prefixes_see_the_same_rounded_numbers_as_plain_passes(name):
    """8 bits, in which the few values that a difference of 1e-7 takes over an edge move little; both far from unrounded."""
    settings = InferenceScheme(activations=Activations(8), kv=KeysValues(2))
    model, exact, asked = build(name, **FAMILIES[name]), build(name, **FAMILIES[name]), branching_questions()
    rounding = attach(model, settings)
    shared, plain = forward.score_trees(model, lay_out(asked), asked), forward.score_plain(model, rows.chains(asked), asked)
    unrounded = forward.score_plain(exact, rows.chains(asked), asked)
    apart = [abs(shared[i].logprob - plain[i].logprob) for i in asked]
    moved = [abs(unrounded[i].logprob - plain[i].logprob) for i in asked]
    assert sorted(apart)[len(apart) // 2] < 1e-4 and sum(apart) < 0.05 * sum(moved)
    with rounding.exact():
        again = forward.score_plain(model, rows.chains(asked), asked)
    assert again == unrounded


def test_the_engine_checks_sharing_without_rounding_and_scores_with_it():
    model, asked = family("llama"), list(branching_questions().values())
    rounding = attach(model, InferenceScheme(kv=KeysValues(2)))
    shared, plain = (LocalEngine(model, 128, share, rounding).score(asked) for share in (True, False))
    exact = LocalEngine(family("llama"), 128).score(asked)
    assert max(abs(a.logprob - b.logprob) for a, b in zip(shared, exact, strict=True)) > 0.1
    assert sorted(abs(a.logprob - b.logprob) for a, b in zip(shared, plain, strict=True))[len(asked) // 2] < 1e-4


def without_cache(block) -> None:
    forward = block.self_attn.forward
    block.self_attn.forward = lambda *args, **kwargs: forward(
        *args, **kwargs | {"past_key_values": None, "past_key_value": None}
    )


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (without_cache, "does not round 1 of 16: the keys and values of model.layers.1. No score"),
        (lambda block: block.mlp.up_proj._forward_pre_hooks.clear(), "1 of 16: the input of model.layers.1.mlp.up_proj. No"),
        (lambda block: block._forward_pre_hooks.clear(), "1 of 16: the keys and values of model.layers.1. No"),
    ],
)
def test_the_first_batch_that_is_scored_proves_that_everything_is_rounded(breaks, said, share):
    """On the model that is scored, whatever was proved when it was quantized; probes and checks before do not count."""
    model, asked = family("llama"), list(branching_questions().values())
    rounding = attach(model, InferenceScheme(activations=Activations(8), kv=KeysValues(4)))
    scorer = LocalEngine(model, 128, share, rounding)
    scorer.score(asked)
    breaks(find_blocks(model)[1][1])
    with pytest.raises(UserError, match=re.escape(said)):
        scorer.score(asked)


@pytest.mark.parametrize("name", sorted(set(CACHED) - {"mixtral"}))
def test_every_layers_input_is_rounded_once_a_token_at_a_time(name):
    model = family(name)
    attach(model, InferenceScheme(activations=Activations(3, symmetric=True)))
    seen = [inputs_of(layer) for layer in block_linears(model).values()]
    logits(model)
    assert all(len(x) == 1 for x in seen)
    assert all(len(row.unique()) <= 8 for [x] in seen for row in x)
    assert all(len(x.unique()) > 100 for [x] in seen)  # each token has a scale of its own


def test_layers_that_read_one_input_share_what_it_becomes(monkeypatch):
    calls = []
    monkeypatch.setattr(input_transform, "fake_quantize", lambda x, *rest: calls.append(1) or fake_quantize(x, *rest))
    model = family("llama")
    attach(model, InferenceScheme(activations=Activations(8)))
    logits(model)
    assert len(calls) == 2 * 4  # of two blocks: q k v, o, gate up, down


@torch.inference_mode()
def test_what_is_divided_is_rounded_after_it():
    model = family("opt")
    name = "model.decoder.layers.0.fc1"
    layer, factor = block_linears(model)[name], torch.logspace(-2, 2, 64)
    attach(model, InferenceScheme(activations=Activations(4)), {name: factor})
    seen, raw = inputs_of(layer), []
    norm = find_blocks(model)[1][0].final_layer_norm
    norm.register_forward_hook(lambda module, inputs, out: raw.append(out.flatten(0, -2)))
    logits(model)
    assert torch.equal(seen[0], fake_quantize(raw[0] * factor, Activations(4)))


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("llama", KeysValues(4, 12), "heads are 16 wide, which groups of 12 do not divide"),
        ("llama", KeysValues(format="mxfp4"), "mxfp4 has blocks of 32"),
        ("mamba", KeysValues(4), "take no cache of keys and values"),
        pytest.param("gemma4_text", KeysValues(4, 32), "heads are 16 wide, which groups of 32 do", marks=needs_transformers_5),
    ],
)
def test_what_has_no_such_keys_and_values_is_refused(name, numbers, said):
    mamba = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2}
    settings = CACHED | {"mamba": mamba, "gemma4_text": UNEQUAL}
    with pytest.raises(UserError, match=said):
        check_keys_and_values(numbers, build(name, **settings[name]))


@needs_transformers_5
def test_groups_that_divide_heads_of_all_widths_are_rounded():
    model = build("gemma4_text", **UNEQUAL)
    check_keys_and_values(KeysValues(4, 16), model)
    before = logits(model)
    attach(model, InferenceScheme(kv=KeysValues(4, 16)))
    assert not torch.equal(logits(model), before)


def test_what_transforms_read_is_on_the_gpu_before_the_first_batch():
    model = family("opt")
    names = list(block_linears(model))
    factors = {name: torch.full((model.get_submodule(name).in_features,), 0.5) for name in names}
    scheme = InferenceScheme(
        Activations(8, group_size=0), KeysValues(8), static_ranges=dict.fromkeys(names, torch.tensor([-9.0, 9.0]))
    )
    attach(model, scheme, factors)
    expected, model = logits(model), family("opt")
    with fake_gpu() as gpu:
        attach(model.to("cuda"), scheme, factors)
        ids = WINDOWS.to("cuda")
        gpu.reset()
        with torch.inference_mode():
            rounded = model(input_ids=ids, use_cache=False).logits
        assert [wait for wait in gpu.waits if "transformers" not in wait] == []
        assert torch.allclose(rounded.cpu(), expected, atol=1e-5)
