"""Reassembling and tuning in the walk through the blocks, in every family."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.quantizers import Tuning
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint, read_checkpoint
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.quantize.inference.reassembly import ReassembledInput, Reassembly, distances, grid, reassemble
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native import chain, reassembly_search
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.proof.inference_changes import prove_inference
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk import blocks
from bitsure.quantize.walk.layer_inputs import layers_by_input
from bitsure.quantize.walk.targets import block_linears
from bitsure.quantize.weights.fake_quantize import fake_quantize
from pocket.outliers import inject
from tests.builders.families import FAMILIES, build
from tests.builders.quantizing import ALL, NATIVE, WINDOWS, nothing

A4 = Activations(4)
REASSEMBLED = Rtn(4, -1, False, transforms=["reassemble"], activations=A4)
QLLM = dataclasses.replace(REASSEMBLED, tuning=Tuning(4, epochs=20, lr=2e-3))


def outlying(family: str):
    model = build(family, **ALL[family])
    inject(model, WINDOWS, strength=64, every=32)
    return model


def quantized(model, quant, folder, advance=nothing):
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    chain.quantize(model, quant, WINDOWS, folder / "parts", out, advance)
    return out


def report(original, out) -> dict:
    return prove(original, load_checkpoint(out, original), WINDOWS[:4])


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(WINDOWS).logits


def mean_error(found: dict) -> float:
    return sum(layer.output_error for layer in found.layers.values()) / len(found.layers)


def test_disassembly_alone_is_proved_and_leaves_less_error_the_wider_it_may_make_a_layer(tmp_path):
    errors = []
    for expansion in (0.05, 0.5):
        quant = dataclasses.replace(REASSEMBLED, transforms=["disassemble"], expansion=expansion)
        out = quantized(outlying("llama"), quant, tmp_path / str(expansion))
        proof = report(outlying("llama"), out)
        assert max(proof.transforms["disassemble"].layers.values()) > 1
        errors.append(mean_error(proof))
    plain = quantized(outlying("llama"), dataclasses.replace(REASSEMBLED, transforms=[]), tmp_path / "plain")
    assert errors[1] < errors[0] < mean_error(report(outlying("llama"), plain))


def test_what_disassembly_cannot_be_combined_with_is_refused():
    apart = {"transforms": ["disassemble"], "activations": A4}
    with pytest.raises(UserError, match=r"such as quant.expansion=0\.05"):
        Rtn(4, -1, False, **apart)
    with pytest.raises(UserError, match=r"group_size=128: .*Give quant\.group_size=-1"):
        Rtn(4, 128, False, **apart, expansion=0.05)
    with pytest.raises(UserError, match="take one"):
        Rtn(4, -1, False, transforms=["disassemble", "reassemble"], activations=A4, expansion=0.05)
    with pytest.raises(UserError, match=r"expansion=0\.05: copies of outlier channels"):
        Rtn(4, -1, False, activations=A4, expansion=0.05)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=() if family in ("gpt2", "llama") else pytest.mark.slow)
        for family in sorted(set(ALL) - {"mixtral"})
    ],
)
def test_every_family_is_reassembled_and_tuned_and_runs_from_disk_as_it_was_tuned(family, tmp_path):
    model, original = outlying(family), outlying(family)
    out = quantized(model, QLLM, tmp_path)
    found = report(outlying(family), out)
    moved = found.transforms["reassemble"]
    assert max(moved.layers.values()) > 1 and sorted(moved.searched) == sorted(moved.layers)
    for names, searched in moved.searched.items():
        assert searched.error <= searched.error_whole
        assert (searched.error < searched.error_whole) == (searched.channels_moved > 0) == (moved.layers[names] > 1)
        assert (names in moved.nothing_to_move) == (searched.channels_moved == 0)
    reassembled = {name for names in moved.layers if names not in moved.nothing_to_move for name in names.split(", ")}
    assert set(moved.largest_input) == reassembled
    tuned = found.transforms["tuning"]
    assert all(ratio < 1 for ratio in tuned.layers.values()) and not tuned.nothing_to_move
    assert found.modules_quantized == sorted(block_linears(original))
    put_into(original, out)
    assert torch.equal(logits(original), logits(model))  # the model that was tuned block by block still has its hooks


def test_reassembling_brings_outputs_nearer_and_tuning_the_model(tmp_path):
    errors, shifts = [], []
    for name, quant in {"plain": Rtn(4, -1, False, activations=A4), "re": REASSEMBLED, "qllm": QLLM}.items():
        model = outlying("llama")
        expected = logits(model)
        out = quantized(outlying("llama"), quant, tmp_path / name)
        errors.append(mean_error(report(outlying("llama"), out)))
        put_into(model, out)
        shifts.append(((logits(model) - expected).norm() / expected.norm()).item())
    assert errors[1] < 0.9 * errors[0]
    assert shifts[2] < shifts[1] < shifts[0]


def strong():
    """A GPT-2 with outlier channels that smoothing leaves some of: the weights that read them are as large as others."""
    model = build("gpt2", **FAMILIES["gpt2"])
    with torch.no_grad():
        for block in model.transformer.h:
            for norm in (block.ln_1, block.ln_2):
                norm.weight[[3, 40]] *= 30
    return model


@pytest.mark.parametrize(
    "quant",
    [
        Kept(transforms=["reassemble"], activations=A4, kv=KeysValues(8)),
        Kept(transforms=["smooth", "reassemble"], smooth_alpha=0.1, activations=A4),
        Gptq(**NATIVE, transforms=["reassemble", "scale", "clip"], activations=A4),
        Rtn(4, 0, True, transforms=["reassemble"], activations=Activations(8, group_size=0)),
        Rtn(4, -1, True, transforms=["smooth", "reassemble"], smooth_alpha=0.1, activations=A4, tuning=Tuning(4, epochs=1)),
        Rtn(format="mxfp4", transforms=["reassemble"], activations=Activations(format="mxfp4")),
    ],
    ids=lambda quant: quant.name,
)
def test_chains_with_reassembling_run_from_disk_as_they_were_calibrated(quant, tmp_path):
    model, original = strong(), strong()
    out = quantized(model, quant, tmp_path)
    found = report(strong(), out)
    assert max(found.transforms["reassemble"].layers.values()) > 1
    put_into(original, out)
    torch.testing.assert_close(logits(original), logits(model), rtol=1e-4, atol=1e-4)


def test_the_threshold_is_the_one_with_the_least_error_of_the_rounded_output():
    """Of a block that is one layer, tried by hand: ‖Q(x')Q(W')ᵀ − xWᵀ‖ / ‖xWᵀ‖ for every reassembly of the grid."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(32, 24, bias=False).requires_grad_(False)
    x = torch.randn(200, 32, generator=generator)
    x[:, [3, 8]] *= 20
    largest, hessian, weight = x.abs().amax(0), x.T @ x / 200, layer.weight.clone()
    found, searched = reassembly_search.search(
        {"w": layer}, largest, hessian, lambda: layer(x), REASSEMBLED, InferenceRounding()
    )
    assert torch.equal(layer.weight, weight) and not layer._forward_pre_hooks
    errors = []
    for parts in grid(largest, reassembly_search.STEPS):
        tried = reassemble(distances(hessian, weight), parts)
        if tried is not None:
            rounded = round_to_nearest(tried.weight(weight), REASSEMBLED).dequantize()
            change = fake_quantize(tried.inputs(x), A4) @ rounded.T - x @ weight.T
            errors.append((change.norm() / (x @ weight.T).norm()).item())
    assert len(errors) > 10 and min(errors) < 0.9 * errors[0]
    assert searched["error"] == pytest.approx(min(errors), rel=1e-5)
    assert searched["error_whole"] == pytest.approx(errors[0], rel=1e-5)
    assert searched["channels_moved"] == len(found.copied) > 0
    assert searched["largest_over_median"] == pytest.approx((largest.max() / largest.median()).item())


def test_thresholds_are_tried_on_batches_from_all_over_the_text(monkeypatch):
    """Of 12 batches of two windows four, from the first to the last; the report says how many tokens that is."""
    ran, real = [], reassembly_search.search

    def search(group, largest, hessian, run, quant, hooks):
        ran.append(run().flatten(0, 1))
        return real(group, largest, hessian, run, quant, hooks)

    monkeypatch.setattr(blocks, "TOKENS_AT_ONCE", 48)
    monkeypatch.setattr(reassembly_search, "SEARCHED", 4 * 48 + 1)
    monkeypatch.setattr(reassembly_search, "search", search)
    model, windows = outlying("llama"), torch.cat([WINDOWS, WINDOWS.flip(1), WINDOWS.roll(1, 1), WINDOWS.roll(2, 1)])
    for prefix, block, feed in blocks.walk(model, windows):
        groups = layers_by_input(block, feed)
        expected = torch.cat([feed.run(feed.batches[i]) for i in (0, 4, 7, 11)]).flatten(0, 1)
        done, _ = reassembly_search.reassemble_block(block, prefix, feed, groups, REASSEMBLED, InferenceRounding())
        assert len(ran) == len(done) == 4 and torch.equal(ran[0], expected)
        assert {one.searched["tokens"] for one in done} == {4 * 48}
        break


def test_reassembling_that_moves_nothing_on_held_out_text_is_an_error(tmp_path):
    """Channels 0 to 3 of the first norm are silent, and it is those that are said to be reassembled."""
    model = build("gpt2", **FAMILIES["gpt2"])
    with torch.no_grad():
        for parameter in (model.transformer.h[0].ln_1.weight, model.transformer.h[0].ln_1.bias):
            parameter[:4] = 0
    name = "transformer.h.0.attn.c_attn"
    silent = Reassembly(
        torch.tensor([0]), torch.tensor([1]), torch.tensor([2]), torch.ones(64).index_fill(0, torch.arange(3), 2)
    )
    claimed = InferenceScheme(
        A4, reassembled=[ReassembledInput([name], silent, {})], transform_effects={"reassemble": {name: 2.0}}
    )
    with pytest.raises(UserError, match=rf"\[reassemble\] changed nothing in the inputs of {name} on held-out text"):
        prove_inference(model, CheckpointContents({}, scheme=claimed), WINDOWS)


def test_where_no_channel_stands_out_nothing_is_moved_and_that_is_said(tmp_path, caplog):
    quant = Kept(transforms=["reassemble"], activations=Activations(8))
    out = quantized(build("opt", **FAMILIES["opt"]), quant, tmp_path)
    found = report(build("opt", **FAMILIES["opt"]), out).transforms["reassemble"]
    still = found.nothing_to_move
    model = build("opt", **FAMILIES["opt"])
    seen: dict[str, torch.Tensor] = {}
    names = "model.decoder.layers.0.self_attn.q_proj"
    block_linears(model)[names].register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0].flatten(0, -2)))
    logits(model)
    largest = seen["x"].abs().amax(0)
    [of_first] = [searched for names_of, searched in found.searched.items() if names in names_of.split(", ")]
    assert of_first.largest_over_median == pytest.approx((largest.max() / largest.median()).item(), rel=1e-4)
    assert still and all(found.searched[names].error == found.searched[names].error_whole > 0 for names in still)


def test_what_was_broken_off_goes_on_and_ends_the_same(tmp_path):
    def crash(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    whole, _ = read_checkpoint(quantized(outlying("opt"), QLLM, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        quantized(outlying("opt"), QLLM, tmp_path, crash)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["model.decoder.layers.0"]
    resumed, _ = read_checkpoint(quantized(outlying("opt"), QLLM, tmp_path))
    assert all(torch.equal(resumed[name].codes, whole[name].codes) for name in whole)
