"""A quantizer that did nothing, or not everything, must not get away with it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk.targets import block_linears, matrix, skipped_modules, unknown_weights
from bitsure.quantize.weights import DenseWeight

HELD_OUT = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model, "float32")[0]


def rounded(model, bits=4):
    return {name: round_to_nearest(linear.weight, Rtn(bits, 32, True)) for name, linear in block_linears(model).items()}


def test_the_blocks_linear_layers_are_the_targets_and_the_rest_has_a_reason(model):
    assert len(block_linears(model)) == 2 * 6
    assert skipped_modules(model) == {
        "model.decoder.embed_tokens": "embedding",
        "model.decoder.embed_positions": "embedding",
        "lm_head": "output head, tied to the embedding",
    }


def test_the_report_says_what_changed(model):
    report = prove(model, CheckpointContents(rounded(model)), HELD_OUT)
    total = sum(p.numel() for p in model.parameters())
    assert report.modules_quantized == sorted(block_linears(model))
    assert report.parameter_share == pytest.approx(2 * (4 * 64 * 64 + 2 * 64 * 128) / total)
    assert report.bits_per_weight == pytest.approx(4 + (16 + 4) / 32)
    assert report.group_sizes == {"32": 12}
    assert 0 < report.relative_error < 0.2
    assert all(0 < layer.output_error < 0.3 and 0 < layer.weight_error < 0.2 for layer in report.layers.values())


def test_one_scale_a_tensor_is_shared_by_all_its_weights(model):
    weights = {name: round_to_nearest(matrix(layer), Rtn(4, 0, True)) for name, layer in block_linears(model).items()}
    sizes = prove(model, CheckpointContents(weights), HELD_OUT).group_sizes
    assert sizes == {str(64 * 64): 2 * 4, str(64 * 128): 2 * 2}


def test_the_output_errors_are_those_of_the_definition(model):
    weights = rounded(model, bits=2)
    report = prove(model, CheckpointContents(weights), HELD_OUT)
    name = "model.decoder.layers.0.self_attn.q_proj"
    linear, seen = block_linears(model)[name], []
    handle = linear.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        model(input_ids=HELD_OUT)
    handle.remove()
    x = seen[0].reshape(-1, 64).double()
    exact, approximate = x @ linear.weight.double().T, x @ weights[name].dequantize().double().T
    error = approximate - exact
    assert report.layers[name].output_error == pytest.approx((error.norm() / exact.norm()).item(), rel=1e-4)
    first = slice(None, None, HELD_OUT.shape[1])
    expected = (error[first].norm() / exact[first].norm()).item()
    assert report.layers[name].first_token_error == pytest.approx(expected, rel=1e-4)
    centred = (error - error.mean(0)).norm() / exact.norm()
    assert report.layers[name].centred_error == pytest.approx(centred.item(), rel=1e-4)


def test_a_warning_says_where_first_tokens_are_rounded_worse_than_the_rest(model, caplog):
    """As in the values of real models, whose first token attention reads most; one block of two is too few."""
    weights = rounded(model)
    prove(model, CheckpointContents(weights), HELD_OUT)
    weights |= {name: worse_at_first_tokens(model, name) for name in layers_of(model, 0, "k_proj", "v_proj")}
    prove(model, CheckpointContents(weights), HELD_OUT)
    assert "first token" not in caplog.text
    weights |= {name: worse_at_first_tokens(model, name) for name in layers_of(model, 1, "v_proj")}
    prove(model, CheckpointContents(weights), HELD_OUT)
    assert "In 2 of 2 blocks a text's first token has more than 3 times output_error in some layer" in caplog.text


def layers_of(model, block, *kinds):
    return [f"model.decoder.layers.{block}.self_attn.{kind}" for kind in kinds]


def worse_at_first_tokens(model, name):
    """Return a layer's weight changed in the direction in which only first tokens' inputs have a part."""
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, 1)))
    with torch.no_grad():
        model(input_ids=HELD_OUT)
    handle.remove()
    is_first = (torch.arange(HELD_OUT.numel()) % HELD_OUT.shape[1] == 0).float()
    direction = torch.linalg.lstsq(seen[0], is_first[:, None]).solution
    return DenseWeight((model.get_submodule(name).weight + 0.01 * direction.T).detach(), bits=4)


def test_a_missing_layer_is_named(model):
    weights = rounded(model)
    del weights["model.decoder.layers.1.fc2"]
    with pytest.raises(UserError, match=r"1 of 12 layers were not quantized: model\.decoder\.layers\.1\.fc2"):
        prove(model, CheckpointContents(weights), HELD_OUT)


def test_nothing_quantized_is_an_error(model):
    with pytest.raises(UserError, match="12 of 12 layers were not quantized"):
        prove(model, CheckpointContents({}), HELD_OUT)


def test_an_unchanged_layer_without_codes_is_named(model):
    name = "model.decoder.layers.0.fc1"
    unchanged = DenseWeight(block_linears(model)[name].weight.detach().clone(), bits=4)
    with pytest.raises(UserError, match=r"1 of 12 layers are unchanged: model\.decoder\.layers\.0\.fc1"):
        prove(model, CheckpointContents(rounded(model) | {name: unchanged}), HELD_OUT)


@pytest.mark.parametrize("fill", [0.0, 0.25])
def test_constant_layers_have_nothing_to_move(tiny_model, fill):
    model, _ = load_model(tiny_model, "float32")
    name = "model.decoder.layers.0.fc1"
    with torch.no_grad():
        model.get_submodule(name).weight.fill_(fill)
    coded = round_to_nearest(model.get_submodule(name).weight, Rtn(4, 32, False))
    for weight in (coded, DenseWeight(model.get_submodule(name).weight.detach().clone(), bits=4)):
        error = prove(model, CheckpointContents(rounded(model) | {name: weight}), HELD_OUT).layers[name]
        assert error.weight_error < 1e-3 and error.output_error < 1e-3


def test_weights_on_the_grid_stay(tiny_model, caplog):
    model, _ = load_model(tiny_model, "float32")
    name = "model.decoder.layers.1.fc2"
    weights = rounded(model)
    with torch.no_grad():
        model.get_submodule(name).weight.copy_(weights[name].dequantize())
    error = prove(model, CheckpointContents(weights), HELD_OUT).layers[name]
    assert error.weight_error == 0 and error.output_error == 0
    assert f"1 of 12 layers are unchanged, because their weights are on the quantizer's grid already: {name}" in caplog.text


def test_a_layer_of_zeros_must_stay_zero(tiny_model):
    model, _ = load_model(tiny_model, "float32")
    name = "model.decoder.layers.0.fc1"
    weights = rounded(model)
    with torch.no_grad():
        model.get_submodule(name).weight.zero_()
    with pytest.raises(UserError, match=rf"1 of 12 layers are zero in the model, but not after quantization: {name}"):
        prove(model, CheckpointContents(weights), HELD_OUT)


def test_broken_numbers_and_wrong_shapes_are_named(model):
    name = "model.decoder.layers.0.fc1"
    good = rounded(model)[name]
    bad = dataclasses.replace(good, scales=good.scales * float("nan"))
    with pytest.raises(UserError, match=r"1 of 12 layers hold NaN"):
        prove(model, CheckpointContents(rounded(model) | {name: bad}), HELD_OUT)
    other = round_to_nearest(torch.randn(3, 3), Rtn(4, 32, True))
    with pytest.raises(UserError, match=r"1 of 12 layers have another shape"):
        prove(model, CheckpointContents(rounded(model) | {name: other}), HELD_OUT)


def test_a_model_without_blocks_is_refused():
    class Flat(torch.nn.Module):
        def get_output_embeddings(self):
            return None

        get_input_embeddings = get_output_embeddings

    with pytest.raises(UserError, match="0 lists of blocks with linear layers"):
        prove(Flat(), CheckpointContents({}), HELD_OUT)


def test_tensors_that_were_rounded_on_the_way_are_named(model):
    name = "model.decoder.layers.0.fc1.bias"
    others = {name: model.state_dict()[name] + 1e-4, "model.decoder.final_layer_norm.weight": torch.ones(64)}
    assert prove(model, CheckpointContents(rounded(model), others), HELD_OUT).other_tensors_rounded == [name]


def test_weights_that_no_quantizer_touches_are_found():
    experts = torch.nn.Module()
    experts.up = torch.nn.Parameter(torch.zeros(4, 8, 8))
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"q": torch.nn.Linear(8, 8), "experts": experts})])
    assert unknown_weights(model) == ["layers.0.experts.up"]


def test_outputs_that_overflow_are_named(tiny_model):
    model, _ = load_model(tiny_model, "float32")
    with torch.no_grad():
        model.model.decoder.layers[0].fc2.bias.fill_(3e38)
    with pytest.raises(UserError, match=r"NaN or infinite outputs on the calibration text: model\.decoder\.layers\.1"):
        prove(model, CheckpointContents(rounded(model)), HELD_OUT)
