"""Blocks of hybrids and of models with a vision tower: what is quantized of them, and going through them."""

from __future__ import annotations

import pytest
import torch

from benchmarks.tiny_models import build_small
from bitsure.base.errors import UserError
from bitsure.quantize.proof.output_errors import output_errors
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.layer_inputs import layers_by_input
from bitsure.quantize.walk.targets import find_blocks, linears, matrix, skipped_modules, unknown_weights


def test_a_hybrid_whose_blocks_return_more_than_their_states_is_gone_through():
    model = build_small("bamba")
    windows = torch.arange(10, 74).reshape(2, 32)
    reached = [name for _, block, feed in walk(model, windows) for group in layers_by_input(block, feed) for name in group]
    assert sorted(reached) == sorted(name for block in find_blocks(model)[1] for name in linears(block))


def test_short_convolutions_keep_full_precision():
    model = build_small("bamba")
    assert unknown_weights(model) == []
    assert skipped_modules(model)["model.layers.0.mamba.conv1d"] == "no linear layer"


@pytest.mark.parametrize(
    ("family", "name", "why"),
    [
        ("mamba", "backbone.layers.0.mixer.dt_proj", "own code reads"),
        ("bart", "model.decoder.layers.0.encoder_attn.q_proj", "encoder"),
    ],
)
def test_layers_that_are_never_run_keep_full_precision(family, name, why):
    model = build_small(family)
    windows = torch.arange(10, 74).reshape(2, 32)
    reached = {name for _, block, feed in walk(model, windows) for group in layers_by_input(block, feed) for name in group}
    assert reached == {name for block in find_blocks(model)[1] for name in linears(block)}
    assert why in skipped_modules(model)[name] and unknown_weights(model) == []


def test_a_layer_that_is_run_in_spite_of_its_name_is_said(caplog):
    """Doge's attention has a dt_proj that is no Mamba's."""
    output_errors(build_small("doge"), lambda name, layer: matrix(layer), torch.arange(10, 74).reshape(2, 32))
    assert "model.layers.0.self_attn.dt_proj: keeps full precision, though the model runs it" in caplog.text


def test_many_weights_that_are_no_linear_layers_are_named():
    assert "transformer.layer.0.rel_attn.q" in unknown_weights(build_small("xlnet"))


def test_blocks_that_do_not_follow_each_other_are_refused(caplog):
    model, windows = build_small("llama"), torch.arange(10, 74).reshape(2, 32)
    run = model.base_model.forward

    def twice(**given):  # the blocks read states that the model's code expects to have changed
        states = run(**given).last_hidden_state
        raise LookupError(f"{states.shape} of another model")

    model.base_model.forward = twice
    message = r"cannot be gone through one by one, because its code fails .*\(LookupError: .* of another model\)\. Nothing"
    with caplog.at_level("INFO"), pytest.raises(UserError, match=message):
        list(walk(model, windows))
    assert "LookupError: torch.Size([1, 8, 64]) of another model" in caplog.text


def test_blocks_that_return_a_list_are_gone_through():
    model = build_small("openai-gpt")
    output_errors(model, lambda name, layer: matrix(layer), torch.arange(10, 74).reshape(2, 32))
    walked = [feed for _, _, feed in walk(model, torch.arange(10, 74).reshape(2, 32))]
    assert torch.allclose(walked[-1].batches[0], model.transformer(torch.arange(10, 74).reshape(2, 32))[0], atol=1e-5)


@pytest.mark.parametrize("family, name", [("gemma3", "model.language_model.layers"), ("gemma3n_text", "model.layers")])
def test_of_several_lists_the_text_decoders_blocks_are_quantized(family, name):
    assert find_blocks(build_small(family))[0] == name


def test_blocks_that_give_each_other_more_than_states_are_refused():
    with pytest.raises(UserError, match="give each other more than hidden states"):
        list(walk(build_small("zaya"), torch.arange(10, 74).reshape(2, 32)))
