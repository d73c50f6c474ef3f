"""Rotations leave the function of every class as it is, to 1e-9 in float64, or are refused in words."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.rotation_settings import RotationSettings
from bitsure.models.size import parameters_of
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.inference.hooks import attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native import chain
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.rotating.exactness import InDouble
from bitsure.quantize.rotating.places import find_rotations
from bitsure.quantize.rotating.rotate import rotate
from bitsure.quantize.walk.targets import block_linears, matrix
from tests.builders.families import build
from tests.builders.quantizing import ALL, NATIVE, WINDOWS, nothing

ROTATED = {family: ["r1", "r2", "r4"] for family in ALL if family not in ("mixtral", "bloom", "gemma2", "falcon")} | {
    "falcon": ["r1", "r4"],
    "bloom": ["r2", "r4"],
    "gemma2": ["r2", "r4"],
}
REFUSED = {
    ("bloom", "r1"): "BloomForCausalLM cannot be rotated: transformer.word_embeddings_layernorm, .* no linear layer",
    ("gemma2", "r1"): r"post_attention_layernorm, .* is read by no linear layer.*kinds=\[r2,r4\]",
    ("falcon", "r2"): "in transformer.h.0 attention reads other numbers than a linear layer gave. Leave r2 out",
    ("opt", "r1"): "no norm is as wide as its embeddings",
    ("mixtral", "r1"): "MixtralForCausalLM cannot be rotated: its tensors cannot be followed",
}


def made(family: str, **settings):
    """A model of a family whose norms and biases are not those that it is initialized with."""
    given = ALL[family] | ({"word_embed_proj_dim": 64} if family == "opt" else {}) | settings
    model, generator = build(family, **given), torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False)


def logits(model) -> torch.Tensor:
    return model(input_ids=WINDOWS, use_cache=False).logits


def quantized(quant, tmp_path, family: str = "llama"):
    """The proof, and the logits of the quantized model as it is read back."""
    (tmp_path / "out").mkdir(parents=True)
    chain.quantize(made(family), quant, WINDOWS, tmp_path / "parts", tmp_path / "out", nothing)
    proof = prove(made(family), load_checkpoint(tmp_path / "out", made(family)), WINDOWS)
    model = made(family)
    hooks = put_into(model, tmp_path / "out")
    return proof, logits(model), hooks


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("family", ROTATED)
def test_the_function_stays_to_1e_9_in_float64(family):
    model = made(family).double()
    before = {name: matrix(layer).clone() for name, layer in block_linears(model).items()}
    with InDouble():
        expected = logits(model)
    rotations = rotate(model, RotationSettings(ROTATED[family]))
    attach(model, InferenceScheme(rotations=rotations))
    with InDouble():
        assert error(logits(model), expected) < 1e-9
    assert not any(torch.equal(matrix(layer), before[name]) for name, layer in block_linears(model).items())


@pytest.mark.parametrize(("family", "kind"), REFUSED)
def test_a_class_that_has_no_place_for_a_rotation_is_refused_before_weights_are_loaded(family, kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **ALL[family]))
    with pytest.raises(UserError, match=REFUSED[family, kind]):
        find_rotations(model, RotationSettings([kind]))


def test_what_reads_the_stream_besides_layers_and_norms_is_noticed():
    model = made("llama")
    model.model.layers[1].register_forward_hook(lambda block, inputs, output: output + 0.01 * output.abs())
    with pytest.raises(UserError, match=r"r1 does not fit LlamaForCausalLM: its logits change by 0\.\d+ .* Leave r1 out"):
        rotate(model, RotationSettings())


def test_a_tied_head_gets_weights_of_its_own():
    model = made("llama", tie_word_embeddings=True)
    expected = logits(model)
    rotate(model, RotationSettings())
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert error(logits(model), expected) < 1e-5


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_quantized_models_come_back_rotated_and_proved(family, tmp_path):
    """In full precision after GPTQ, MX formats with smoothing, and keys and values: near to the original, by every rotation."""
    kv = {"kv": KeysValues(8), "rotation": RotationSettings(["r1", "r2", "r3", "r4"], seed=3)}
    mx = NATIVE | {"bits": None, "group_size": None, "symmetric": None, "format": "mxfp8_e4m3"}
    quants = [
        Gptq(**NATIVE | {"bits": 8}, transforms=["rotate"]),
        Kept(transforms=["rotate"], activations=Activations(8), **kv),
        Gptq(**mx, transforms=["rotate", "smooth"], activations=Activations(format="mxfp8_e4m3"), **kv),
    ]
    full = made(family)
    expected, head = logits(full), full.get_output_embeddings().weight
    parameters = parameters_of(full) + head.numel() if head is full.get_input_embeddings().weight else None
    for number, quant in enumerate(quants):
        proof, found, hooks = quantized(quant, tmp_path / str(number), family)
        hooks.check_reached()
        assert 0 < error(found, expected) < 0.1
        assert set(proof.transforms["rotate"].layers) == set(block_linears(made(family)))
        assert proof.parameters == parameters  # a head that was tied is a matrix of its own
    assert proof.transforms["rotate"].rotations == {
        "r1": "Hadamard 8 ⊗ Hadamard 8, in weights",
        "r2": "Hadamard 4 ⊗ Hadamard 4, in weights",
        "r4 96": "Hadamard 12 ⊗ Hadamard 8, while the model runs",
        "r3": "Hadamard 4 ⊗ Hadamard 4, while the model runs",
    }


def test_weights_alone_need_no_calibration_text(tmp_path):
    quant = Rtn(8, 32, True, transforms=["rotate"])
    assert not quant.needs_data and quant.changes_model
    _, found, _ = quantized(quant, tmp_path)
    assert error(found, logits(made("llama"))) < 0.1


def test_a_broken_off_run_goes_on_at_its_block(tmp_path):
    quant = Gptq(**NATIVE, transforms=["rotate"], rotation=RotationSettings(["r1", "r2", "r4"]))

    def stop(*args, note: str, **kwargs) -> None:
        raise KeyboardInterrupt

    for directory in ("first", "second", "whole"):
        (tmp_path / directory).mkdir()
    with pytest.raises(KeyboardInterrupt):
        chain.quantize(made("llama"), quant, WINDOWS, tmp_path / "parts", tmp_path / "first", stop)
    notes = []
    goes_on = lambda *args, note, **kwargs: notes.append(note)  # noqa: E731
    chain.quantize(made("llama"), quant, WINDOWS, tmp_path / "parts", tmp_path / "second", goes_on)
    chain.quantize(made("llama"), quant, WINDOWS, tmp_path / "others", tmp_path / "whole", nothing)
    assert "resumed" in notes[0] and "resumed" not in notes[1]
    resumed, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("second", "whole"))
    assert resumed == whole


def test_rotating_keys_helps_where_they_have_an_outlier_channel(tmp_path):
    """R3 rounds them rotated and gives attention what they were, so that nothing else changes."""

    def outlying(kinds: list[str]) -> float:
        model, other = (made("opt") for _ in range(2))
        for each in (model, other):
            for block in each.model.decoder.layers:
                block.self_attn.k_proj.bias[::16] += 30
        quant = Kept(transforms=["rotate"], kv=KeysValues(4), rotation=RotationSettings(kinds, seed=1))
        out = tmp_path / "".join(kinds)
        out.mkdir()
        chain.quantize(model, quant, WINDOWS, tmp_path / "p", out, nothing)
        expected = logits(other)
        put_into(other, out)
        return error(logits(other), expected)

    assert outlying(["r2", "r3"]) < 0.7 * outlying(["r2"])
