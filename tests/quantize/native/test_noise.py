"""Noise that is as large in every layer's output as what a quantizer did."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.schema import ModelSettings
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.quantize.calibration.calibration_text import RandomTokens, locate_text
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.full_precision import NoQuant
from bitsure.quantize.native.noise import Noise
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.plan import Plan
from bitsure.quantize.walk.targets import block_linears, matrix
from tests.builders.families import FAMILIES, build

GPTQ = Gptq(bits=3, group_size=32, symmetric=True, backend="native", desc_act=False, damp_percent=0.01)


@pytest.fixture(scope="module", params=["opt", "gpt2"])
def made(request, tmp_path_factory, calib_file):
    """A small model on disk, GPTQ of it, and the noise of two seeds like it."""
    from tests.conftest import byte_tokenizer

    folder = tmp_path_factory.mktemp("noise")
    build(request.param, **FAMILIES[request.param]).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    calib = CalibSettings(name="text", path=str(calib_file), nsamples=8, seqlen=64)
    source = locate_model(ModelSettings(path=str(folder / "model")), None)
    plan = Plan(source, GPTQ, calib, locate_text(calib, None), "float32")
    store = Store(folder / "store")
    noisy = [ensure_quantized(plan.noise(seed), store, folder / "log") for seed in (0, 1)]
    return source, ensure_quantized(plan, store, folder / "log"), noisy


def test_noise_of_half_the_size_has_half_the_output_error(made, calib_file, tmp_path):
    source, gptq, _ = made
    calib = CalibSettings(name="text", path=str(calib_file), nsamples=8, seqlen=64)
    plan = Plan(source, GPTQ, calib, locate_text(calib, None), "float32")
    half = ensure_quantized(plan.noise(0, 0.5), Store(tmp_path / "store"), tmp_path / "log")
    for name, layer in half.proof.layers.items():
        assert layer.output_error == pytest.approx(gptq.proof.layers[name].output_error / 2, rel=1e-2), name


def test_its_output_error_is_the_quantizers_in_every_layer(made):
    _, gptq, noisy = made
    for one in noisy:
        assert one.proof.layers.keys() == gptq.proof.layers.keys()
        for name, layer in one.proof.layers.items():
            assert layer.output_error == pytest.approx(gptq.proof.layers[name].output_error, rel=1e-3), name
        assert one.proof.quantizer.startswith("noise-gptq3-g32-native-")


def test_its_size_is_a_setting_and_part_of_its_key_unless_it_is_one():
    half = Noise(like=GPTQ, scale=0.5)
    assert half.name == "noise-0.5x-gptq3-g32-native-0" and half.identity(None)["scale"] == 0.5
    assert "scale" not in Noise(like=GPTQ).identity(None)
    for settings in ({"scale": 0.0}, {"scale": float("nan")}):
        with pytest.raises(UserError, match=r"quant\.scale=.*: a number above 0"):
            Noise(like=GPTQ, **settings)


def test_it_is_gaussian_another_for_each_seed_and_each_layer_and_the_same_again(made):
    source, _, noisy = made
    original, _ = load_model(source.path, "float32")
    changes = []
    for one in (*noisy, noisy[0]):
        model, _ = load_model(source.path, "float32")
        put_into(model, one.checkpoint)
        layers = block_linears(original)
        changes.append({name: matrix(layer) - matrix(layers[name]) for name, layer in block_linears(model).items()})
    first, other, again = changes
    for name, change in first.items():
        unit = (change / change.std()).flatten().double()
        assert torch.equal(change, again[name])
        assert abs(unit.mean()) < 0.1 and abs((unit**4).mean() - 3) < 0.5  # as a normal distribution has it
        assert abs(torch.corrcoef(torch.stack([unit, other[name].flatten().double()]))[0, 1]) < 0.1


def test_nothing_but_its_size_is_kept(made):
    checkpoint = made[2][0].checkpoint
    assert sum(file.stat().st_size for file in checkpoint.iterdir() if file.name == "noise.json") < 2_000
    assert not list(checkpoint.glob("*.safetensors"))


def test_what_it_is_like_is_in_its_key(made):
    source, _, _ = made
    calib = CalibSettings(name="text", path=__file__.replace(".py", ".txt"), nsamples=8, seqlen=64)
    text = RandomTokens("text", "nowhere", "f")
    keys = [
        Plan(source, Noise(like=like, seed=seed), calib, text, "float32").made_from
        for like, seed in ((GPTQ, 0), (GPTQ, 1), (Rtn(3, 32, True), 0), (Rtn(4, 32, True), 0))
    ]
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])


def test_noise_like_nothing_is_refused():
    with pytest.raises(UserError, match="noise is matched to a quantizer"):
        Noise(like=NoQuant())
