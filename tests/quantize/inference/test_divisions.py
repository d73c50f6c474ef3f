"""Smoothing leaves the function as it is, in every family, and is folded where there is a layer before."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.number_formats import Activations
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.inference.divisions import OFFSET, SCALE, Division, find_sources
from bitsure.quantize.inference.hooks import attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.native import chain
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.transforms import smoothing_scales
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.layer_inputs import layers_by_input
from bitsure.quantize.walk.targets import block_linears, matrix
from tests.builders.families import build
from tests.builders.quantizing import ALL, WINDOWS, nothing

# layers → what is divided before them; None: done at run time, as between two layers that are not linear in each channel
FOLDED = {
    "opt": {"q_proj": "self_attn_layer_norm", "out_proj": "self_attn.v_proj", "fc1": "final_layer_norm", "fc2": "fc1"},
    "llama": {"q_proj": "input_layernorm", "o_proj": None, "gate_proj": "post_attention_layernorm", "down_proj": "mlp.up_proj"},
    "gemma": {"q_proj": "input_layernorm", "o_proj": None, "gate_proj": "post_attention_layernorm", "down_proj": "mlp.up_proj"},
    "gpt2": {"c_attn": "ln_1", "c_proj": None, "c_fc": "ln_2"},
    "bloom": {"query_key_value": "input_layernorm", "dense": None, "dense_h_to_4h": "post_attention_layernorm"},
    "phi": {"q_proj": "input_layernorm", "dense": "self_attn.v_proj", "fc2": None},
}


@pytest.mark.parametrize("family", sorted(set(ALL) - {"mixtral"}))
@torch.inference_mode()
def test_before_any_rounding_the_model_is_the_same(family, tmp_path):
    model, original = (build(family, **ALL[family]) for _ in range(2))
    expected = original(input_ids=WINDOWS, use_cache=False).logits
    quant = Kept(transforms=["smooth"], smooth_alpha=0.7, activations=Activations(8))
    (tmp_path / "out").mkdir()
    chain.quantize(model, quant, WINDOWS, tmp_path / "parts", tmp_path / "out", nothing)
    scheme = InferenceScheme.read(tmp_path / "out")
    assert {name for one in scheme.divisions for name in one.layers} == set(block_linears(original))
    assert all(one.scales.max() / one.scales.min() > 1.1 for one in scheme.divisions)
    before = {name: matrix(layer).clone() for name, layer in block_linears(original).items()}
    for division in scheme.divisions:
        division.apply(original.get_submodule)
    assert not any(torch.equal(matrix(layer), before[name]) for name, layer in block_linears(original).items())
    attach(original, InferenceScheme(divisions=scheme.divisions), {})
    found = original(input_ids=WINDOWS, use_cache=False).logits
    assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("family", FOLDED)
def test_it_is_folded_into_the_layer_before(family):
    _, block, feed = next(walk(build(family, **ALL[family]), WINDOWS))
    groups = layers_by_input(block, feed)
    found = find_sources(block, groups, lambda: feed.run(feed.batches[0]) - feed.batches[0])
    for group, (source, how) in zip(groups, found, strict=True):
        first = next(iter(group)).rpartition(".")[2]
        assert first not in FOLDED[family] or source == FOLDED[family][first]
        assert how == (OFFSET if family == "gemma" and source and "norm" in source else SCALE)


def test_a_division_that_changes_the_model_is_an_error():
    """Into a norm that another layer reads too."""
    name = "model.layers.0.self_attn.q_proj"
    wrong = Division([name], torch.linspace(0.5, 2, 64), "model.layers.0.input_layernorm")
    settings = InferenceScheme(activations=Activations(8), divisions=[wrong], transform_effects={"smooth": {name: 4.0}})
    with pytest.raises(UserError, match="changed what the model computes before anything was rounded"):
        prove(build("llama", **ALL["llama"]), CheckpointContents({}, scheme=settings), WINDOWS)


@pytest.mark.parametrize("family", ["gpt2", "gemma"])
@torch.no_grad()
def test_a_large_residual_channel_hides_no_wrong_source_in_half_precision(family, tmp_path):
    """Beside a channel in the thousands, what a GELU makes of other inputs is less than a percent of the block's output."""
    model = build(family, **ALL[family])
    model.get_input_embeddings().weight[:, 5] = 1000
    for name, parameter in model.named_parameters():
        if "norm" in name or ".ln_" in name:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    (tmp_path / "out").mkdir()
    quant = Kept(transforms=["smooth"], activations=Activations(8))
    chain.quantize(model.bfloat16(), quant, WINDOWS, tmp_path / "parts", tmp_path / "out", nothing)
    found = InferenceScheme.read(tmp_path / "out").divisions
    assert len(found) == 8
    for division in found:
        expected = FOLDED[family][division.layers[0].rpartition(".")[2]] if "mlp.c_proj" not in division.layers[0] else None
        assert (division.source and division.source.partition(".0." if ".0." in division.source else ".1.")[2]) == expected


def test_the_scales_are_those_of_the_paper():
    largest, weight = torch.tensor([16.0, 1.0, 0.0, 4.0]), torch.tensor([[1.0, -4.0, 1.0, 0.0], [-0.25, 1.0, 2.0, 0.0]])
    assert smoothing_scales(largest, weight, 0.5).tolist() == [4.0, 0.5, 1.0, 1.0]
    assert smoothing_scales(largest, weight, 1.0).tolist() == [16.0, 1.0, 1.0, 1.0]
    assert smoothing_scales(largest, weight, 0.0).tolist() == [1.0, 0.25, 1.0, 1.0]


def test_smoothing_helps_where_a_norm_has_outlier_channels(tmp_path):
    """A norm's gain times 50 in two channels, the next weights' columns divided by 50: the same function, hard to round."""

    def outliers():
        model = build("opt", **ALL["opt"])
        with torch.no_grad():
            for block in model.model.decoder.layers:
                for norm, layers in (
                    (block.self_attn_layer_norm, [block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj]),
                    (block.final_layer_norm, [block.fc1]),
                ):
                    norm.weight[[3, 7]] *= 50
                    norm.bias[[3, 7]] *= 50
                    for layer in layers:
                        layer.weight[:, [3, 7]] /= 50
        return model

    def error(transforms: list[str]) -> float:
        out = tmp_path / "-".join(["out", *transforms])
        out.mkdir()
        quant = Kept(transforms=transforms, activations=Activations(6))
        chain.quantize(outliers(), quant, WINDOWS, tmp_path / "parts", out, nothing)
        report = prove(outliers(), load_checkpoint(out, outliers()), WINDOWS)
        return sum(layer.output_error for name, layer in report.layers.items() if "fc2" not in name)

    assert error(["smooth"]) < 0.5 * error([])
