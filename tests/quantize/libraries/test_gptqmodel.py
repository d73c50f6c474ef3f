"""The real gptqmodel on a small real model: its packed checkpoint, read by us, is what it itself computes with."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.tiny_models import build_small, small_config
from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.libraries import gptqmodel
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.modules import empty_modules
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.walk.targets import block_linears
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.marks import needs_gptqmodel
from tests.builders.plans import plan
from tests.builders.quantizing import NATIVE
from tests.builders.tokenizers import byte_tokenizer

pytestmark = needs_gptqmodel


@pytest.fixture(scope="module", params=[(2, True), (3, True), (4, True), (8, True), (2, False), (4, False)], ids=str)
def made(request, tiny_model, calib_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gptq")
    bits, symmetric = request.param
    settings = Gptq(bits=bits, group_size=32, symmetric=symmetric, backend="gptqmodel", desc_act=False, damp_percent=0.01)
    return ensure_quantized(plan(tiny_model, settings, calib_file), Store(folder / "store"), folder / "log")


@pytest.mark.slow
def test_our_reading_of_the_packed_checkpoint_is_gptqmodels_own(made, tiny_model, tmp_path):
    from bitsure.base import terminal

    with terminal.output_to(tmp_path / "log"):
        theirs = gptqmodel.load_packed(made.checkpoint, "float16")
    ours, _ = load_model(tiny_model, "float32")
    put_into(ours, made.checkpoint)
    layers = dict(theirs.named_modules())
    for name in made.proof.modules_quantized:
        dequantized = layers[name].dequantize_weight().T.float()
        assert torch.allclose(dequantized, dict(ours.named_modules())[name].weight, atol=2e-3 * dequantized.abs().max()), name
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, theirs(ids).logits.float(), atol=0.05 * ours(ids).logits.abs().max())
    requests = [([5, 6, 7, 8 + i // 3], [9 + i % 3, 20]) for i in range(12)]  # shared prefixes on packed kernels, checked there
    for a, b in zip(LocalEngine(theirs, 1024).score(requests), LocalEngine(ours, 1024).score(requests), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=0.5)


def test_it_is_closer_in_output_than_rounding(made, tiny_model, calib_file, tmp_path):
    bits, symmetric = bits_of(made), "asym" not in made.proof.quantizer
    rounding = ensure_quantized(plan(tiny_model, Rtn(bits, 32, symmetric), calib_file), Store(tmp_path), tmp_path / "log")

    def mean_error(report):
        return math.fsum(layer.output_error for layer in report.layers.values()) / len(report.layers)

    assert mean_error(made.proof) < mean_error(rounding.proof)


def bits_of(made) -> int:
    return int(made.proof.quantizer.removeprefix("gptq").split("-")[0])


def test_every_setting_reaches_gptqmodel(made):
    written = json.loads((made.checkpoint / "quantize_config.json").read_text())
    assert written["bits"] == bits_of(made)
    assert (written["group_size"], written["desc_act"]) == (32, False)
    assert written["sym"] == ("asym" not in made.proof.quantizer)
    assert written["meta"]["damp_percent"] == 0.01
    assert written["meta"]["act_group_aware"] is False and written["meta"]["fallback"] is None


def test_bits_per_weight_are_those_on_disk(made):
    bits = bits_of(made)
    assert made.proof.bits_per_weight == pytest.approx(bits + (16 + bits) / 32)


def test_widths_that_cannot_be_packed_are_refused_before_loading():
    settings = Gptq(bits=3, group_size=128, symmetric=True, backend="gptqmodel", desc_act=False, damp_percent=0.01)
    with pytest.raises(UserError, match=r"multiples of 32; 1 layers are not, such as down with 64 × 172"):
        gptqmodel.check_fits(settings, {"up": (128, 64), "down": (64, 172)})


def test_methods_that_the_library_replaces_for_the_whole_process_are_restored(tmp_path):
    from transformers.models.llama.modeling_llama import LlamaMLP

    before = LlamaMLP.forward
    with gptqmodel._kept_in(tmp_path):
        LlamaMLP.forward = LlamaMLP.extra_repr = lambda self: ""
    assert LlamaMLP.forward is before and "extra_repr" not in vars(LlamaMLP)


def test_layers_that_the_library_leaves_out_are_counted_and_the_way_out_is_named(tiny_model, tmp_path):
    names = list(block_linears(empty_modules(tiny_model)))
    save_file({f"{name}.qweight": torch.zeros(1) for name in names[1:]}, tmp_path / "model.safetensors")
    job = SimpleNamespace(source=SimpleNamespace(path=tiny_model), directory=tmp_path)
    message = rf"leaves out 1 of the {len(names)} linear layers .* such as {names[0]}\. quant\.backend=native"
    with pytest.raises(UserError, match=message):
        gptqmodel._check_complete(Gptq(**NATIVE), job)


@pytest.mark.parametrize(
    "family, reason",
    [
        ("afmoe", r"gptqmodel leaves out 20 of the 28 linear layers .* such as model\.layers\.0\.mlp\.down_proj"),
        (
            "bert",
            r"gptqmodel does not quantize this model: it does not know this family\. Its own error: \w+Error: .*module tree",
        ),
    ],
)
def test_families_that_the_library_does_not_do_are_refused_before_it_works(family, reason, calib_file, tmp_path, monkeypatch):
    from gptqmodel.models.base import BaseQModel

    build_small(family).save_pretrained(tmp_path / family)
    byte_tokenizer().save_pretrained(tmp_path / family)
    monkeypatch.setattr(BaseQModel, "quantize", lambda *given, **more: pytest.fail("it quantizes"))
    planned = plan(tmp_path / family, Gptq(**NATIVE | {"backend": "gptqmodel"}), calib_file)
    with pytest.raises(UserError, match=reason):
        ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")


def test_a_model_of_text_and_images_is_quantized(calib_file, tmp_path):
    """Its config has no number of layers; that of its text decoder has."""
    build_small("gemma3").save_pretrained(tmp_path / "gemma3")
    byte_tokenizer().save_pretrained(tmp_path / "gemma3")
    small_config("gemma3").save_pretrained(tmp_path / "gemma3")
    planned = plan(tmp_path / "gemma3", Gptq(**NATIVE | {"backend": "gptqmodel"}), calib_file)
    assert len(ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log").proof.modules_quantized) == 14


@pytest.mark.parametrize(
    "error, reason",
    [
        (
            ValueError("<class 'X'> requires package mamba-ssm, but mamba-ssm not installed."),
            "needs the package mamba-ssm, which is not",
        ),
        (
            ValueError("<class 'X'> requires version mamba_ssm>=2, but mamba_ssm not installed."),
            "needs the package mamba_ssm, which is not",
        ),
        (ImportError("X requires the timm library but it was not found in your environment."), "needs the package timm, which"),
        (OSError("Can't load image processor for 'x'. If you were trying"), "needs the model's preprocessor_config.json"),
        (TypeError("'NoneType' object is not subscriptable"), "its code for this family fails"),
        (ImportError("This modeling file requires the following packages that"), "its code for this family fails"),
        (ValueError("GPTQ requires a CUDA device"), "its code for this family fails"),
        (ValueError("act_group_aware requires desc_act"), "its code for this family fails"),
        (
            ValueError("<class 'X'> requires version mamba_ssm>=2, but current mamba_ssm version is 1"),
            "its code for this family fails",
        ),
    ],
)
def test_what_the_library_says_is_put_in_words(error, reason):
    assert reason in gptqmodel._why(error)
