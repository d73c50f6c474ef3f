from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.compress import coders, measure, model_compressibility
from bitsure.compress.codes import codes_of_activations
from bitsure.compress.entropy import entropy
from bitsure.compress.load_time import load_times
from bitsure.compress.model_compressibility import ensure_compressibility, headline
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.schema import CompressSettings
from bitsure.quantize.checkpoint.read_checkpoint import iterate_weights, read_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.inference.hooks import attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.libraries.llama_cpp import LlamaCpp
from bitsure.quantize.libraries.prequantized import Prequantized
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.cast import Cast
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears
from bitsure.quantize.weights import IntegerWeight
from bitsure.report import compressibility_table
from bitsure.results import to_plain
from bitsure.results.compressibility import AS_STORED, CoderResult
from tests.builders import families
from tests.builders.plans import plan


def weight(codes: np.ndarray, bits: int = 4) -> IntegerWeight:
    out, width = codes.shape
    scales = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 1, (out, 1))).half()
    zeros = torch.full((out, 1), 2 ** (bits - 1), dtype=torch.int32)
    grouping = torch.zeros(width, dtype=torch.int64)
    return IntegerWeight(bits=bits, codes=torch.from_numpy(codes).int(), scales=scales, zeros=zeros, group_of=grouping)


def write(folder, weights):
    folder.mkdir()
    write_checkpoint(folder, weights)
    return folder


@pytest.fixture
def half_used(tmp_path):
    """Two layers of 4 bits: one uses every code alike, the other two codes alone, which are worth one bit."""
    rng = np.random.default_rng(0)
    full, two = rng.integers(0, 16, (64, 512)), rng.integers(7, 9, (64, 512))
    return write(tmp_path / "made", {"a": weight(full), "b": weight(two)})


def test_a_model_of_codes_by_hand(half_used):
    found = measure.measure_weights(half_used, 10**6, 0)
    assert (found.n, found.n_measured, found.weights, found.bits) == (65536, 65536, 65536, 4)
    tensor = found.entropy["tensor"]
    assert tensor.value == pytest.approx(2.5, abs=0.002) and tensor.n == 2
    assert tensor.bound == pytest.approx(4 / tensor.value)
    assert [found.entropy[level].n for level in ("channel", "group")] == [128, 128]
    assert found.bits_per_weight == pytest.approx(4 + (16 + 4) / 512)
    coded = found.coders[coders.RANGE_CODER]
    beside = found.beside_bits_per_weight
    assert beside.stored == pytest.approx(20 / 512) and beside.coded < beside.stored  # zero points are all the same
    assert coded.bits_per_weight == pytest.approx(tensor.value + beside.coded + 2 * 16 * 16 / 65536, abs=0.003)
    assert coded.ratio == pytest.approx(found.bits_per_weight / coded.bits_per_weight)
    assert found.best == coders.RANGE_CODER and found.bits_per_weight_coded == coded.bits_per_weight
    assert found.tensors["b"].entropy["tensor"] == pytest.approx(1, abs=0.001)
    assert all(result.bits_per_weight >= tensor.value for result in found.coders.values())


def test_codes_that_cannot_be_coded_stay_as_they_are(tmp_path):
    codes = weight(np.random.default_rng(0).integers(0, 256, (64, 512)), 8)
    one_scale = dataclasses.replace(codes, scales=codes.scales[:1], zeros=codes.zeros[:1])
    made = write(tmp_path / "made", {"a": one_scale})
    found = measure.measure_weights(made, 10**6, 0)
    assert found.best == AS_STORED and found.bits_per_weight_coded == found.bits_per_weight


def test_a_large_model_is_measured_on_rows_of_it(half_used):
    all_of_it, some = (measure.measure_weights(half_used, codes, 0) for codes in (10**6, 2 * 16 * 512))
    assert (some.n, some.n_measured) == (65536, 2 * 16 * 512)
    assert some.entropy["tensor"].value == pytest.approx(all_of_it.entropy["tensor"].value, abs=0.01)
    assert some.coders["range_coder"].bits_per_weight == pytest.approx(
        all_of_it.coders["range_coder"].bits_per_weight, abs=0.05
    )
    assert some.bits_per_weight == all_of_it.bits_per_weight


def test_loading_by_hand(half_used):
    coder = CoderResult(bits_per_weight=4.0, ratio=2.0, seconds_to_decode=3.0, decoded_mb_per_second=1.0)
    results = dict.fromkeys(coders.NAMES, coder)
    results[coders.ZSTD_BYTES] = coder.model_copy(update={"ratio": 0.5, "seconds_to_decode": 1.0})
    measured = measure.measure_weights(half_used, 10**6, 0)
    weights = measured.model_copy(update={"bits_per_weight": 8.0, "weights": 400_000_000, "coders": results})
    times = load_times(weights, 100).by_coder
    assert to_plain(times[AS_STORED]) == {"mb": 400, "read_seconds": 4, "decode_seconds": 0, "seconds": 4}
    half = {"mb": 200, "read_seconds": 2, "decode_seconds": 3, "seconds": 5, "faster_below_mb_per_second": 200 / 3}
    assert to_plain(times[coders.RANGE_CODER]) == half  # at 66.7 MB/s: 6 s as stored, 3 s + 3 s coded
    assert times[coders.ZSTD_BYTES].faster_below_mb_per_second is None


def test_layers_that_read_the_same_input_count_once():
    model = families.build("falcon", **families.FAMILIES["falcon"])
    found = measure.measure_activations(model, {}, torch.arange(40).view(2, 20), 10**6, 0)
    names = {name.split(".h.")[1] for name in found.tensors}
    read = {f"{block}.{name}" for block in (0, 1) for name in ("self_attention.query_key_value", "self_attention.dense")}
    # Falcon's attention and its feed-forward layers read the same norm's output
    assert names == read | {f"{block}.mlp.dense_4h_to_h" for block in (0, 1)}
    assert found.n == 40 * 2 * (64 + 64 + 256)
    assert set(found.entropy) == {"tensor", "channel", "token"} and 0 < found.entropy["token"].value < 8


@torch.no_grad()
def test_activations_are_those_of_the_layers():
    model = families.build("llama", **families.FAMILIES["llama"])
    seen = []
    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    windows = torch.arange(40).view(2, 20)
    model(windows)
    handle.remove()
    expected = entropy(codes_of_activations(seen[0].flatten(0, 1), measure.UNROUNDED, None, 10**9, 0).codes, 8).value
    found = measure.measure_activations(model, {}, windows, 10**6, 0).tensors["model.layers.1.mlp.down_proj"]
    assert found.entropy["tensor"] == pytest.approx(expected, abs=1e-3)


ROUNDED = {
    "static": Activations(4, 0),
    "groups": Activations(4, 24),
    "fp8": Activations(format="fp8_e5m2"),
    "mx": Activations(format="mxfp6_e2m3"),
}


@pytest.mark.parametrize("name", ROUNDED)
@torch.no_grad()
def test_activations_are_coded_as_the_format_that_rounds_them(name, monkeypatch):
    """Codes are of what the layer really reads, after its factor."""
    numbers, layer = ROUNDED[name], "model.layers.1.mlp.down_proj"
    model, coded, read = families.build("llama", **families.FAMILIES["llama"]), {}, []
    spans = dict.fromkeys(block_linears(model), torch.tensor([-1.0, 1.0])) | {layer: torch.tensor([-0.5, 2.0])}
    settings = InferenceScheme(activations=numbers, static_ranges=spans if numbers.static else {})
    hooks = attach(model, settings, {layer: torch.linspace(0.5, 2, 96)})
    windows = torch.arange(40).view(2, 20)
    monkeypatch.setattr(measure, "summarize", lambda tensors: coded.update(tensors))
    measure.measure_activations(model, hooks.transforms, windows, 10**6, 0)
    block_linears(model)[layer].register_forward_hook(lambda layer, inputs, out: read.append(inputs[0].flatten(0, 1)))
    model(windows)
    one = coded[layer]
    assert one.bits == numbers.bits and ("group" in one.units) == (numbers.group_size > 0)
    shared = {0: np.zeros((1, 1), int), -1: one.units["token"]}.get(numbers.group_size, one.units.get("group"))
    shared = np.broadcast_to(shared, one.codes.shape)
    for unit in np.unique(shared):  # of what shares a scale, equal codes are equal numbers, and other codes other ones
        here = shared == unit
        pairs = {(-1 if x == 0 else code, x) for code, x in zip(one.codes[here].tolist(), read[0].numpy()[here], strict=True)}
        assert len({code for code, _ in pairs}) == len({x for _, x in pairs}) == len(pairs)


@pytest.fixture(scope="module")
def made(tiny_model, calib_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store, log_file = Store(folder), folder / "log"
    planned = plan(tiny_model, Rtn(3, 32, False), calib_file)
    return planned, ensure_quantized(planned, store, log_file), store, log_file


def test_a_second_run_measures_nothing(made, monkeypatch):
    planned, quantized, store, log_file = made
    settings = CompressSettings(tokens=128)
    first = ensure_compressibility(planned, lambda: quantized.checkpoint, settings, store, log_file)
    assert first.weights.bits_per_weight == pytest.approx(quantized.proof.bits_per_weight)
    assert first.activations.tokens == 128 and first.activations.text == "text"
    assert set(headline(first)) == {"bits_per_weight_coded", "coded_with", "code_entropy", "load_seconds"}
    monkeypatch.setattr(model_compressibility, "_measure", None)
    assert ensure_compressibility(planned, lambda: quantized.checkpoint, settings, store, log_file) == first
    slower = ensure_compressibility(
        planned, lambda: quantized.checkpoint, CompressSettings(tokens=128, bandwidth=5), store, log_file
    )
    before, after = (result.loading.by_coder[AS_STORED].seconds for result in (first, slower))
    assert after == pytest.approx(100 * before)  # the bandwidth is no cause of what was measured


def test_each_weight_alone_is_as_all_of_them_together(made):
    _, quantized, _, _ = made
    together, _ = read_checkpoint(quantized.checkpoint)
    total, each = iterate_weights(quantized.checkpoint)
    alone = dict(each)
    assert total == len(alone) and alone.keys() == together.keys()
    for name, one in together.items():
        assert torch.equal(alone[name].codes, one.codes) and torch.equal(alone[name].scales, one.scales)


@pytest.mark.parametrize(("name", "bits"), [("mxfp4", 4), ("mxfp6_e2m3", 6), ("mxint8", 8), ("fp8_e4m3", 8)])
def test_small_formats_have_codes_too(made, tiny_model, calib_file, name, bits):
    _, _, store, log_file = made
    planned = plan(tiny_model, Rtn(format=name), calib_file)
    quantized = ensure_quantized(planned, store, log_file)
    found = ensure_compressibility(planned, lambda: quantized.checkpoint, CompressSettings(tokens=0), store, log_file).weights
    assert found.bits == bits and found.bits_per_weight == pytest.approx(quantized.proof.bits_per_weight)
    assert 0 < found.entropy["group"].value <= found.entropy["tensor"].value <= bits


def test_activations_have_codes_where_weights_are_kept(made, tiny_model, calib_file):
    _, _, store, log_file = made
    planned = plan(tiny_model, Kept(activations=Activations(4)), calib_file)
    quantized = ensure_quantized(planned, store, log_file)
    found = ensure_compressibility(planned, lambda: quantized.checkpoint, CompressSettings(tokens=128), store, log_file)
    assert found.weights is None and found.loading is None and headline(found) == {}
    activations = found.activations
    assert activations.bits == 4 and activations.format == "int4, asymmetric, one scale a token"
    assert 0 < activations.entropy["token"].value < activations.entropy["tensor"].value <= 4
    assert activations.bits_per_weight == pytest.approx(4 + 20 / 64, abs=0.1)  # widths 64 and 128
    section = compressibility_table.section(found)
    assert "Activations: " in section.sentence and section.bandwidth is None
    cached = plan(tiny_model, Kept(kv=KeysValues(4)), calib_file)
    quantized = ensure_quantized(cached, store, log_file)
    assert ensure_compressibility(cached, lambda: quantized.checkpoint, CompressSettings(tokens=128), store, log_file) is None


def test_activations_that_are_not_rounded_are_said_not_to_be(made):
    planned, quantized, store, log_file = made
    found = ensure_compressibility(
        planned, lambda: quantized.checkpoint, CompressSettings(tokens=64), store, log_file
    ).activations
    assert found.format == "int8, symmetric, one scale a token (they are not rounded in this model)"


def test_nothing_is_measured_where_nothing_is_to_be(made, tiny_model, calib_file, caplog):
    planned, quantized, store, log_file = made
    assert ensure_compressibility(planned, lambda: quantized.checkpoint, CompressSettings(codes=0), store, log_file) is None
    cast = plan(tiny_model, Cast("bfloat16"), calib_file)
    assert ensure_compressibility(cast, lambda: quantized.checkpoint, CompressSettings(), store, log_file) is None
    assert "compress.measure=true measures nothing here: quant=bfloat16 has no codes to measure" in caplog.text
    assert not LlamaCpp("q4_k_m").has_codes
    assert not Prequantized(path="m.gguf").has_codes and Prequantized(path="directory").has_codes
    alone = ensure_compressibility(planned, lambda: quantized.checkpoint, CompressSettings(tokens=0), store, log_file)
    assert alone.activations is None and alone.weights.n > 0
    assert headline(None) == {}


@pytest.mark.parametrize("wrong", [{"codes": -1}, {"tokens": -1}, {"bandwidth": 0.0}])
def test_settings_that_cannot_be_are_refused(wrong):
    [key] = wrong
    with pytest.raises(UserError, match=f"compress.{key}="):
        CompressSettings(**wrong)
