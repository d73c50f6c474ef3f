"""Activations, keys and values that were not rounded, and transforms that changed nothing, must not get away with it."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.models.size import measure_size
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.inference.divisions import Division
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.proof.inference_changes import prove_inference
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.targets import block_linears, find_blocks
from bitsure.quantize.weights.fake_quantize import fake_quantize
from bitsure.report.rounded import shipped_bytes
from tests.builders.families import FAMILIES, build
from tests.builders.plans import plan
from tests.builders.quantizing import WINDOWS
from tests.builders.result_files import model_origin
from tests.builders.tokenizers import byte_tokenizer

SETTINGS = InferenceScheme(activations=Activations(8), kv=KeysValues(4, 8))


def llama():
    return build("llama", **FAMILIES["llama"])


def test_the_errors_are_those_of_the_definition():
    model = llama()
    found = prove(model, CheckpointContents({}, scheme=SETTINGS), WINDOWS)
    name, seen, keys = "model.layers.1.self_attn.q_proj", [], []
    block_linears(model)[name].register_forward_hook(lambda layer, inputs, out: seen.append(inputs[0]))
    find_blocks(model)[1][1].self_attn.v_proj.register_forward_hook(lambda layer, inputs, out: keys.append(out))
    with torch.inference_mode():
        model(input_ids=WINDOWS, use_cache=False)
    x, weight = seen[0].flatten(0, -2).double(), block_linears(model)[name].weight.double()
    rounded = fake_quantize(seen[0], Activations(8)).flatten(0, -2).double()
    activations = found.activations
    assert (activations.bits, activations.group_size, activations.symmetric) == (8, -1, False)
    assert set(activations.errors) == set(block_linears(model)) and activations.always_zero == []
    assert activations.errors[name] == pytest.approx(((rounded - x).norm() / x.norm()).item(), rel=1e-4)
    expected = ((rounded - x) @ weight.T).norm() / (x @ weight.T).norm()
    assert found.layers[name].weight_error == 0
    assert found.layers[name].output_error == pytest.approx(expected.item(), rel=1e-3)
    values = keys[0].view(6, 24, 2, 16)  # in groups of 8 of a head's 16 channels
    expected = (fake_quantize(values, KeysValues(4, 8)) - values).norm() / values.norm()
    assert found.keys_and_values.errors["model.layers.1 values"] == pytest.approx(expected.item(), rel=1e-4)
    assert len(found.keys_and_values.errors) == 4
    cache = found.keys_and_values
    assert cache.values_per_token == 2 * 2 * 2 * 16  # blocks, keys and values, heads, channels
    assert cache.bits_per_value == 4 + (16 + 4) / 8  # a scale and a zero point for 8 values
    widths = [layer.weight.shape[1] for layer in block_linears(model).values()]
    assert activations.values_per_token == sum(widths)
    assert activations.bits_per_value == pytest.approx(8 + (16 + 8) * len(widths) / sum(widths))


def test_what_half_precision_adds_to_the_grid_is_recorded():
    """bfloat16 has 8 bits: 8-bit integers times a scale are off by a third of a step, MX numbers not at all."""
    assert prove(llama(), CheckpointContents({}, scheme=SETTINGS), WINDOWS).activations.off_grid == 0
    half = llama().bfloat16()
    found = prove(half, CheckpointContents({}, scheme=SETTINGS), WINDOWS)
    activations, keys = found.activations, found.keys_and_values
    assert 2**-10 < activations.off_grid < 2**-8 and activations.off_grid < min(activations.errors.values())
    assert 0 < keys.off_grid < 2**-8
    mx = InferenceScheme(activations=Activations(format="mxfp8_e4m3"))
    assert prove(llama().bfloat16(), CheckpointContents({}, scheme=mx), WINDOWS).activations.off_grid == 0


def test_kept_weights_are_said_to_be_kept():
    """Loaded in float32, and as large as the model's own files, which are in half precision."""
    found = prove(llama(), CheckpointContents({}, scheme=SETTINGS), WINDOWS, stored_bits=16.0)
    assert found.modules_quantized == [] and found.relative_error == 0
    assert found.bits_per_weight == 16 and found.parameter_share == 0
    assert found.modules_skipped["model.layers.0.mlp.up_proj"] == "weights are kept"


def test_keys_and_values_alone_are_measured_in_one_walk_since_no_layer_changes():
    model, calls = llama(), []
    find_blocks(model)[1][1].register_forward_hook(lambda block, inputs, out: calls.append(block))
    list(walk(model, WINDOWS))
    calls_of_a_walk = len(calls)
    changes = prove(model, CheckpointContents({}, scheme=InferenceScheme(kv=KeysValues(4, 8))), WINDOWS)
    assert len(calls) == 2 * calls_of_a_walk
    assert {layer.output_error for layer in changes.layers.values()} == {0} and len(changes.layers) == len(block_linears(model))


def test_a_model_with_kept_weights_is_as_large_as_its_files(tmp_path, calib_file):
    llama().half().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    store, made = Store(tmp_path / "store"), plan(tmp_path / "model", Kept(kv=KeysValues(4)), calib_file)
    proof, full = ensure_quantized(made, store, tmp_path / "log").proof, measure_size(made.source, store)
    origin = model_origin().model_copy(update=asdict(full))
    assert shipped_bytes(proof, origin) == full.bytes_on_disk
    assert proof.bits_per_weight == pytest.approx(16, rel=0.1)  # the files' headers count


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            InferenceScheme(activations=Activations(8)),
            "The activations of 14 of 14 are unchanged: model.layers.0.mlp.down_proj",
        ),
        (InferenceScheme(kv=KeysValues(4)), "The keys and values of 4 of 4 are unchanged: model.layers.0 keys"),
    ],
)
def test_a_format_that_changes_nothing_is_an_error(settings, said, monkeypatch):
    for module in ("input_transform", "keys_values"):
        monkeypatch.setattr(f"bitsure.quantize.inference.{module}.fake_quantize", lambda x, *rest: x)
    with pytest.raises(UserError, match=said):
        prove(llama(), CheckpointContents({}, scheme=settings), WINDOWS)


def test_inputs_that_are_on_the_grid_already_stay(caplog):
    model = build("opt", **FAMILIES["opt"])
    pruned = find_blocks(model)[1][0].fc1
    with torch.no_grad():
        pruned.weight.zero_()
        pruned.bias.fill_(1.0)
    scheme = InferenceScheme(activations=Activations(format="mxfp8_e4m3"))
    errors = prove(model, CheckpointContents({}, scheme=scheme), WINDOWS).activations.errors
    name = "model.decoder.layers.0.fc2"
    assert errors[name] == 0 < errors["model.decoder.layers.1.fc2"]
    assert f"activations that are on the grid already on the held-out text: {name}" in caplog.text


def test_keys_and_values_that_are_not_reached_are_an_error(monkeypatch):
    monkeypatch.setattr(
        "bitsure.quantize.inference.keys_values.ChangingCache.update", lambda self, keys, values, *rest: (keys, values)
    )
    with pytest.raises(UserError, match=r"keys and values were not reached: model.layers.0 keys"):
        prove(llama(), CheckpointContents({}, scheme=SETTINGS), WINDOWS)


def test_one_block_whose_keys_and_values_are_not_reached_is_named():
    model = llama()
    attention = find_blocks(model)[1][1].self_attn
    forward = attention.forward
    attention.forward = lambda *args, **kwargs: forward(*args, **kwargs | {"past_key_values": None, "past_key_value": None})
    with pytest.raises(UserError, match=r"keys and values were not reached: model.layers.1 keys, model.layers.1 values"):
        prove(model, CheckpointContents({}, scheme=SETTINGS), WINDOWS)


def test_inputs_that_are_always_zero_are_said_to_be():
    model = llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.zero_()
    found = prove(model, CheckpointContents({}, scheme=SETTINGS), WINDOWS)
    assert found.activations.always_zero == ["model.layers.0.mlp.down_proj"]


def test_smoothing_that_moved_nothing_is_an_error_and_a_search_that_found_nothing_is_said():
    name = "model.layers.0.mlp.up_proj"
    idle = InferenceScheme(SETTINGS.activations, None, [Division([name], torch.ones(64))], {}, {"smooth": {name: 1.0}})
    with pytest.raises(UserError, match=r"smooth.* changed nothing: every scale is 1"):
        prove(llama(), CheckpointContents({}, scheme=idle), WINDOWS)
    moved = {"scale": {name: 1.0, "other": 3.0}, "clip": {name: 0.0}}
    found = prove_inference(llama(), CheckpointContents({}, scheme=InferenceScheme(transform_effects=moved)), WINDOWS)[
        "transforms"
    ]
    assert found["scale"].nothing_to_move == [name] and found["clip"].nothing_to_move == [name]
    assert found["scale"].layers == moved["scale"]
