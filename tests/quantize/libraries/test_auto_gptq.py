"""auto-gptq, the study's library: refused where it cannot run; in its own environment the real one on small real models."""

from __future__ import annotations

import json
import math
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from safetensors.torch import load_file

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.models.tokenizers import load_tokenizer
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint
from bitsure.quantize.libraries import auto_gptq
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.make import Quantized, ensure_quantized
from tests.builders.families import FAMILIES, build
from tests.builders.marks import needs_auto_gptq
from tests.builders.plans import plan


def settings(**changes) -> Gptq:
    given = {"bits": 4, "group_size": 32, "symmetric": True, "desc_act": False, "damp_percent": 0.01, "backend": "auto_gptq"}
    return Gptq(**given | changes)


@pytest.mark.parametrize(
    ("installed", "reason"),
    [({}, "is not installed"), ({"auto_gptq": "0.7.1"}, r"does not import beside transformers 5\.23\.0")],
    ids=["missing", "transformers 5"],
)
def test_elsewhere_it_is_refused_with_the_commands(tiny_model, calib_file, monkeypatch, installed, reason):
    def version(name: str) -> str:
        if name not in {"torch": "2.13.0", "transformers": "5.23.0"} | installed:
            raise PackageNotFoundError(name)
        return ({"torch": "2.13.0", "transformers": "5.23.0"} | installed)[name]

    monkeypatch.setattr("bitsure.quantize.plan.installed_version", version)
    commands = r"run make setup-auto-gptq, then \.venv-auto-gptq/bin/python main\.py with the same settings"
    with pytest.raises(UserError, match=f"quant=gptq4-g32-autogptq needs auto_gptq, which {reason}: in .* {commands}"):
        _ = plan(tiny_model, settings(), calib_file).made_from


@pytest.mark.parametrize(
    ("changes", "family", "dtype", "shapes", "said"),
    [
        ({}, "gpt2", "float32", {"a": (64, 64)}, r"it can do opt, bloom, .*, and not gpt2\. Ways out: quant\.backend=native"),
        ({}, "llama", "float32", {"up": (64, 64), "down": (64, 172)}, r"1 layers are not, such as down with 64 × 172"),
        ({"bits": 8}, "opt", "bfloat16", {"a": (64, 64)}, r"too few digits for 8 bits\. Give model\.dtype=float16"),
    ],
)
def test_what_it_cannot_do_is_refused_before_weights_are_loaded(changes, family, dtype, shapes, said):
    with pytest.raises(UserError, match=said):
        auto_gptq.check_fits(settings(**changes), family, dtype, shapes)


def quantized(model, quant, calib_file, folder) -> Quantized:
    return ensure_quantized(plan(model, quant, calib_file), Store(folder / "store"), folder / "log")


VARIANTS = {
    **{f"{bits} bits": {"bits": bits} for bits in (2, 3, 4, 8)},
    "rows": {"group_size": -1},
    "shorter groups": {"group_size": 1024},
    "act-order": {"desc_act": True},
    "asymmetric": {"symmetric": False},
    "parallel": {"true_sequential": False},
    "damped": {"damp_percent": 0.5},
}


@pytest.fixture(scope="module", params=VARIANTS)
def made(request, tiny_model, calib_file, tmp_path_factory):
    quant = settings(**VARIANTS[request.param])
    return quant, quantized(tiny_model, quant, calib_file, tmp_path_factory.mktemp("made"))


@needs_auto_gptq
def test_our_reading_of_its_checkpoint_is_what_its_kernel_computes_with(made):
    # not from its from_quantized, which leaves torch's and transformers' initialization switched off
    from auto_gptq.utils.import_utils import dynamically_import_QuantLinear

    quant, found = made
    if quant.group_size > 64:
        pytest.skip("its kernel cannot run groups that are longer than a row")
    kernel = dynamically_import_QuantLinear(False, quant.desc_act, quant.group_size, quant.bits, True, True)
    stored = load_file(next(found.checkpoint.glob("*.safetensors")))
    weights, _ = read_checkpoint(found.checkpoint)
    for name in found.proof.modules_quantized:
        weight = weights[name].dequantize()
        layer = kernel(quant.bits, quant.group_size, *reversed(weight.shape), bias=True, weight_dtype=torch.float32)
        layer.load_state_dict({part: stored[f"{name}.{part}"] for part in layer.state_dict()})
        assert torch.allclose((layer(torch.eye(weight.shape[1])) - layer.bias).T, weight, atol=1e-6), name


@needs_auto_gptq
def test_every_setting_reaches_it(made):
    quant, found = made
    written = json.loads((found.checkpoint / "quantize_config.json").read_text())
    given = {"bits": quant.bits, "group_size": quant.group_size, "sym": quant.symmetric, "desc_act": quant.desc_act}
    given |= {"damp_percent": quant.damp_percent, "true_sequential": quant.true_sequential}
    assert {key: written[key] for key in given} == given


@needs_auto_gptq
def test_its_output_error_is_our_own_solvers(made, tiny_model, calib_file, tmp_path):
    quant, found = made
    native = quantized(tiny_model, Gptq(**vars(quant) | {"backend": "native"}), calib_file, tmp_path)
    assert mean_error(found.proof) == pytest.approx(mean_error(native.proof), rel=0.05)


@needs_auto_gptq
def test_each_setting_changes_the_weights(tiny_model, calib_file, tmp_path):
    def last_layer(changes) -> torch.Tensor:
        weights, _ = read_checkpoint(quantized(tiny_model, settings(**changes), calib_file, tmp_path).checkpoint)
        return weights["model.decoder.layers.1.fc2"].dequantize()

    plain = last_layer({})
    for name, changes in VARIANTS.items():
        assert torch.equal(last_layer(changes), plain) == (name == "4 bits"), name


@needs_auto_gptq
@pytest.mark.parametrize("family", auto_gptq.FAMILIES)
def test_every_family_is_quantized_as_by_our_own_solver(family, tiny_model, calib_file, tmp_path):
    model = tmp_path / "model"
    build(family, **FAMILIES[family]).save_pretrained(model)
    load_tokenizer(tiny_model).save_pretrained(model)
    check_plan(plan(model, settings(), calib_file), Store(tmp_path / "store"))
    found = quantized(model, settings(), calib_file, tmp_path)
    native = quantized(model, settings(backend="native"), calib_file, tmp_path)
    assert found.proof.modules_quantized == native.proof.modules_quantized
    assert mean_error(found.proof) == pytest.approx(mean_error(native.proof), rel=0.05)


@needs_auto_gptq
@pytest.mark.parametrize(("bits", "dtype"), [(8, "float16"), (4, "bfloat16")])
def test_half_precision(bits, dtype, tiny_model, calib_file, tmp_path):
    library, native = (
        ensure_quantized(
            plan(tiny_model, settings(bits=bits, backend=backend), calib_file, dtype), Store(tmp_path), tmp_path / "log"
        )
        for backend in ("auto_gptq", "native")
    )
    assert mean_error(library.proof) == pytest.approx(mean_error(native.proof), rel=0.05)


@needs_auto_gptq
def test_zero_points_that_it_cannot_store_are_an_error(tiny_model, calib_file, tmp_path):
    quant = settings(bits=2, symmetric=False, group_size=16)
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.k_proj got zero points of 0.*Ways out: quant\.symmetric=true"):
        quantized(tiny_model, quant, calib_file, tmp_path)


@needs_auto_gptq
def test_too_little_text_for_the_damping_is_an_error(tiny_model, tmp_path):
    model, _ = load_model(tiny_model, "float32")
    with pytest.raises(UserError, match=r"quant\.damp_percent=1e-12: the Hessian of .*\.0\.self_attn\.k_proj is not positive"):
        auto_gptq.quantize(
            model, settings(damp_percent=1e-12), torch.arange(8)[None], tmp_path, tmp_path / "log", lambda *_, **__: None
        )


@needs_auto_gptq
def test_what_it_says_and_how_far_it_is(tiny_model, tmp_path):
    from auto_gptq.modeling import _base

    before = _base.CUDA_0, _base.GPTQ, torch.cuda.synchronize
    model, _ = load_model(tiny_model, "float32")
    told = []
    windows = torch.randint(0, 288, (4, 64), generator=torch.Generator().manual_seed(0))
    auto_gptq.quantize(
        model, settings(), windows, tmp_path, tmp_path / "log", lambda n=1, total=None, unit="": told.append((n, total))
    )
    assert told == [(0, 2), (1, 2), (1, 2)]
    assert "Quantizing fc2 in layer 2/2" in (tmp_path / "log").read_text()
    assert before == (_base.CUDA_0, _base.GPTQ, torch.cuda.synchronize)


def mean_error(report: dict) -> float:
    return math.fsum(layer.output_error for layer in report.layers.values()) / len(report.layers)
