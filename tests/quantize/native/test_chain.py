"""Our own quantizers on whole models: every family, and going on after a break."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bitsure.config.number_formats import ELEMENTS, Activations, KeysValues
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.checkpoint_contents import CheckpointContents
from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint
from bitsure.quantize.inference import input_transform
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native import chain, chain_block
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.native.transforms import search_scales
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk import blocks, replay
from bitsure.quantize.walk.targets import block_linears, matrix, unknown_weights
from bitsure.quantize.weights.fake_quantize import fake_quantize
from tests.builders.families import FAMILIES, build
from tests.builders.marks import SHARED, needs_shared
from tests.builders.quantizing import ALL, NATIVE, WINDOWS, nothing

QUANTIZERS = {"rtn": Rtn(4, 32, True), "awq": Rtn(4, 32, False, transforms=["scale", "clip"]), "gptq": Gptq(**NATIVE)}


A8, AMX, KV4 = Activations(8), Activations(format="mxfp4"), KeysValues(4)
SOLVER = {key: NATIVE[key] for key in ("backend", "desc_act", "damp_percent")}
CHAINS = {
    "w4a8kv4": Rtn(4, 32, False, activations=A8, kv=KV4),
    "static": Rtn(8, -1, True, activations=Activations(8, 0)),
    "static tensor": Rtn(8, 0, True, activations=Activations(format="fp8_e4m3", group_size=0)),
    "smooth": Rtn(8, -1, True, transforms=["smooth"], activations=Activations(8, symmetric=True)),
    "smooth static": Kept(transforms=["smooth"], activations=Activations(8, 0), kv=KeysValues(format="fp8_e5m2")),
    "awq a8": Rtn(4, 32, False, transforms=["scale", "clip_asymmetric"], activations=A8),
    "scale static": Rtn(4, 32, False, transforms=["scale"], activations=Activations(8, 0)),
    "smooth scale static": Rtn(4, 32, False, transforms=["smooth", "scale"], activations=Activations(8, 0)),
    "all at once": Rtn(4, 32, False, transforms=["smooth", "scale", "clip"], activations=A8, true_sequential=False),
    "smooth gptq mxfp4": Gptq(format="mxfp4", transforms=["smooth"], activations=AMX, kv=KV4, **SOLVER),
    "scale gptq a8": Gptq(**NATIVE, transforms=["scale", "clip"], activations=A8),
    "scale gptq mxint4": Gptq(format="mxint4", transforms=["scale"], remainder="pad", **SOLVER),
    "fp8 gptq act-order": Gptq(format="fp8_e4m3", group_size=32, **SOLVER | {"desc_act": True}),
    **{name: Rtn(format=name, activations=Activations(format=name)) for name in ELEMENTS},
}


def with_families(quantizers) -> list:
    """Return every family with one quantizer, `gptq`, and every quantizer with two families; the rest is slow."""
    return [
        pytest.param(family, name, marks=() if name == "gptq" or family in ("llama", "gpt2") else pytest.mark.slow)
        for family in sorted(set(ALL) - {"mixtral"})
        for name in quantizers
    ]


WHOLE, REPLAYED = with_families(QUANTIZERS), with_families(("gptq", "scale gptq a8", "smooth gptq mxfp4"))


def quantized(model, quant, folder, advance=nothing, windows=WINDOWS):
    """Integer weights and other tensors as they come back from disk, and where they are."""
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    chain.quantize(model, quant, windows, folder / "parts", out, advance)
    return *read_checkpoint(out), out


def test_rounding_without_text_shows_its_progress_block_by_block(tmp_path):
    steps = []
    quantized(build("llama", **ALL["llama"]), QUANTIZERS["rtn"], tmp_path, lambda *given, **about: steps.append((given, about)))
    assert steps == [((1,), {"total": 2, "note": f"model.layers.{number}", "unit": "blocks"}) for number in (0, 1)]


@pytest.mark.parametrize(("family", "quantizer"), WHOLE)
def test_every_family_is_quantized_whole_and_comes_back_from_disk(family, quantizer, tmp_path):
    model, original = build(family, **ALL[family]), build(family, **ALL[family])
    back, others, out = quantized(model, QUANTIZERS[quantizer], tmp_path)
    report = prove(original, CheckpointContents(back, others), WINDOWS[:2])
    assert report.modules_quantized == sorted(block_linears(original)) and not unknown_weights(original)
    assert 0 < report.relative_error < 0.2
    put_into(original, out)
    if quantizer != "rtn":  # which leaves the model as it was
        for name, layer in block_linears(original).items():
            assert torch.equal(matrix(layer), matrix(block_linears(model)[name]))


@pytest.mark.parametrize("name", CHAINS)
def test_every_chain_runs_and_a_model_made_from_disk_is_the_one_that_was_calibrated(name, tmp_path):
    """Widths 64 and 96 + 10: blocks of 32 leave a rest."""
    settings = FAMILIES["llama"] | {"intermediate_size": 106}
    model, original, scored = (build("llama", **settings) for _ in range(3))
    quant = CHAINS[name]
    back, others, out = quantized(model, quant, tmp_path)
    report = prove(original, CheckpointContents(back, others, InferenceScheme.read(out)), WINDOWS[:2])
    assert all(layer.output_error < 0.4 for layer in report.layers.values())
    assert (report.activations is not None) == (quant.activations is not None)
    assert (report.keys_and_values is not None) == (quant.kv is not None)
    assert set(report.transforms or {}) == set(quant.transforms)
    put_into(scored, out)
    if quant.needs_data:
        with torch.inference_mode():
            logits, expected = (each(input_ids=WINDOWS, use_cache=False).logits for each in (scored, model))
        assert torch.equal(logits, expected)
    if quant.name.startswith("rtn-mxfp4"):
        assert report.bits_per_weight == pytest.approx((4 * (64 * 2 + 106) + 8 * (2 * 2 + 4)) / 234, rel=0.1)


def test_static_ranges_are_those_of_the_scaled_inputs(tmp_path):
    """Channels from 0.1 to 10: with the range of the inputs before they are scaled most of them would be cut off, or vanish."""

    def uneven():
        model = build("llama", **FAMILIES["llama"])
        with torch.no_grad():
            for block in model.model.layers:
                for norm in (block.input_layernorm, block.post_attention_layernorm):
                    norm.weight.copy_(torch.logspace(-1, 1, 64))
        return model

    errors = {}
    for group_size in (-1, 0):
        quant = Rtn(8, 32, False, transforms=["scale"], activations=Activations(8, group_size))
        back, others, out = quantized(uneven(), quant, tmp_path / str(group_size))
        proof = prove(uneven(), CheckpointContents(back, others, InferenceScheme.read(out)), WINDOWS[:2])
        names = [name for name in proof.layers if name.endswith(("q_proj", "up_proj"))]
        assert max(proof.transforms["scale"].layers.values()) > 3
        errors[group_size] = sum(proof.layers[name].output_error for name in names)
    assert errors[0] < 2 * errors[-1]


def test_scales_are_searched_for_the_layers_as_they_are_rounded(tmp_path, monkeypatch):
    """With one scale a tensor q, k and v have one each, with groups their rows stand together."""
    searched = []

    def search(weights, *rest):
        searched.append([tuple(weight.shape) for weight in weights])
        return search_scales(weights, *rest)

    monkeypatch.setattr(chain_block, "search_scales", search)
    for group_size, first in ((0, [(64, 64), (32, 64), (32, 64)]), (32, [(128, 64)])):
        searched.clear()
        quant = Rtn(8, group_size, False, transforms=["scale"], activations=A8)
        quantized(build("llama", **FAMILIES["llama"]), quant, tmp_path / str(group_size))
        assert searched[0] == first


def test_a_warning_says_where_errors_are_offsets_that_all_tokens_share(caplog):
    models = [build("gpt2", **FAMILIES["gpt2"]) for _ in range(2)]
    with torch.no_grad():
        for block in models[1].transformer.h:
            block.ln_1.bias.fill_(5)
            block.ln_2.bias.fill_(5)
    for model, warns in zip(models, (False, True), strict=True):
        weights = {name: round_to_nearest(matrix(layer), Rtn(2, 32, True)) for name, layer in block_linears(model).items()}
        prove(model, CheckpointContents(weights), WINDOWS)
        assert ("most of the output error is one offset" in caplog.text) == warns


def test_an_interrupted_chain_with_rounding_at_run_time_resumes_to_the_same_result(tmp_path):
    quant = CHAINS["smooth gptq mxfp4"]

    def crash(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    whole, _, out = quantized(build("opt", **FAMILIES["opt"]), quant, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        quantized(build("opt", **FAMILIES["opt"]), quant, tmp_path, crash)
    resumed, _, again = quantized(build("opt", **FAMILIES["opt"]), quant, tmp_path)
    assert all(torch.equal(resumed[name].codes, whole[name].codes) for name in whole)
    first, second = InferenceScheme.read(out), InferenceScheme.read(again)
    assert all(torch.equal(a.scales, b.scales) for a, b in zip(first.divisions, second.divisions, strict=True))
    assert (first.transform_effects, first.kv, first.activations) == (second.transform_effects, second.kv, second.activations)


def test_gptq_is_closer_than_awq_and_awq_closer_than_rounding(tmp_path):
    errors = []
    for name, quant in QUANTIZERS.items():
        model = build("llama", **FAMILIES["llama"])
        weights, *_ = quantized(model, quant, tmp_path / name)
        report = prove(build("llama", **FAMILIES["llama"]), CheckpointContents(weights), WINDOWS)
        errors.append(sum(layer.output_error for layer in report.layers.values()))
    assert errors == sorted(errors, reverse=True)


def test_an_interrupted_run_resumes_after_the_last_finished_block_with_the_same_result(tmp_path):
    quant, notes = Gptq(**NATIVE), []

    def crash(*args, **kwargs) -> None:
        raise KeyboardInterrupt

    whole, *_ = quantized(build("opt", **FAMILIES["opt"]), quant, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        quantized(build("opt", **FAMILIES["opt"]), quant, tmp_path, crash)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["model.decoder.layers.0"]
    resumed, *_ = quantized(
        build("opt", **FAMILIES["opt"]), quant, tmp_path, lambda *_, note, **__: notes.append(note.partition(" changed")[0])
    )
    assert notes == ["model.decoder.layers.0: resumed", "model.decoder.layers.1: weights"]
    assert all(torch.equal(resumed[name].codes, whole[name].codes) for name in whole)


@pytest.mark.parametrize(("family", "chain_name"), REPLAYED)
def test_what_is_replayed_is_what_would_be_computed(family, chain_name, tmp_path, monkeypatch):
    quant = (CHAINS | QUANTIZERS)[chain_name]
    monkeypatch.setattr(blocks, "TOKENS_AT_ONCE", 2 * WINDOWS.shape[1])
    results = []
    for most in (100, 3, 0):  # all, some of it, nothing
        monkeypatch.setattr(replay, "KEPT", most)
        weights, *_ = quantized(build(family, **ALL[family]), quant, tmp_path / str(most))
        results.append(weights)
    first, *others = results
    assert all(torch.equal(other[name].codes, first[name].codes) for other in others for name in first)


def test_the_input_of_a_layer_is_rounded_once_a_batch(tmp_path, monkeypatch):
    rounded = []
    monkeypatch.setattr(input_transform, "fake_quantize", lambda x, *rest: rounded.append(x.shape) or fake_quantize(x, *rest))
    monkeypatch.setattr(blocks, "TOKENS_AT_ONCE", 2 * WINDOWS.shape[1])
    monkeypatch.setattr(replay, "KEPT", 100)
    quantized(build("opt", **FAMILIES["opt"]), Gptq(**NATIVE, activations=A8), tmp_path)
    assert len(rounded) == 2 * 4 * len(WINDOWS) / 2  # blocks, inputs in each, batches


@needs_shared
@pytest.mark.parametrize(("remainder", "groups"), [("shorten", "64"), ("pad", "128"), ("row", "64")])
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_real_model_of_odd_widths(quantizer, remainder, groups, tmp_path):
    """Widths 64 and 172, neither of which 128 divides."""
    path = SHARED / "hub" / "models" / "karpathy" / "stories260K"
    model, _ = load_model(path, "float32")
    quant = dataclasses.replace(QUANTIZERS[quantizer], bits=3, group_size=128, remainder=remainder)
    windows = torch.randint(3, 500, (4, 64), generator=torch.Generator().manual_seed(1))
    back, others, _ = quantized(model, quant, tmp_path, windows=windows)
    report = prove(load_model(path, "float32")[0], CheckpointContents(back, others), windows)
    inner = {"shorten": "128 and 44", "pad": "128", "row": "172"}[remainder]
    of_64, of_172 = 6 * 5, 5  # layers: q, k, v, o, gate, up; down
    expected = {groups: of_64} | {inner: of_172} if groups != inner else {groups: of_64 + of_172}
    assert report.group_sizes == expected
    assert 0 < report.relative_error < 0.4 and len(report.modules_quantized) == of_64 + of_172
