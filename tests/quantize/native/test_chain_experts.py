"""Each expert of a mixture is quantized by itself, on the tokens that reach it."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.number_formats import Activations
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint, read_checkpoint
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native import chain
from bitsure.quantize.native.gptq_solver import round_with_hessian
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk.mixtures import SeparateExperts, read_all, separate_experts
from bitsure.quantize.walk.targets import block_linears
from tests.builders.families import MIXTURES, build
from tests.builders.marks import needs_transformers_5
from tests.builders.quantizing import NATIVE, WINDOWS, nothing

pytestmark = needs_transformers_5
GROUPS = {"bits": 4, "group_size": 32, "symmetric": True}
CHAINS = {
    "rtn": Rtn(**GROUPS),
    "gptq": Gptq(**NATIVE),
    "awq": Rtn(4, 32, False, transforms=["scale", "clip"]),
    "smooth a8": Rtn(**GROUPS, transforms=["smooth"], activations=Activations(8)),
}


def mixture(family="mixtral"):
    model = build(family, **MIXTURES[family])
    separate_experts(model)
    return model


def idle(model):
    """The model with an expert in its first block that no token is routed to."""
    model.model.layers[0].mlp.gate.weight.data[3] = 0
    fourth = model.model.layers[0].mlp
    gate = fourth.gate
    forward = type(gate).forward

    def routed(states):
        logits, weights, numbers = forward(gate, states)
        return logits, weights, numbers.clamp(max=2).sort(-1).values - torch.tensor([1, 0]) * (numbers.clamp(max=2).diff() == 0)

    gate.forward = routed
    return model


@pytest.mark.parametrize(
    ("family", "name"), [("mixtral", name) for name in CHAINS] + [("gpt_oss", "gptq"), ("qwen2_moe", "gptq")]
)
@torch.no_grad()
def test_every_expert_is_quantized_and_comes_back_from_disk(family, name, tmp_path):
    calibrated, out = mixture(family), tmp_path / "out"
    out.mkdir()
    chain.quantize(calibrated, CHAINS[name], WINDOWS, tmp_path / "parts", out, nothing)
    original = mixture(family)
    report = prove(original, load_checkpoint(out, original), WINDOWS[:2])
    assert report.modules_quantized == sorted(block_linears(original))
    assert report.bits_per_weight == pytest.approx(4.625 if name != "awq" else 4.8, abs=0.3)
    assert all(0 < layer.output_error < 0.5 for layer in report.layers.values())
    scored = build(family, **MIXTURES[family])
    hooks = put_into(scored, out)
    separate = [module for module in scored.modules() if isinstance(module, SeparateExperts)]
    assert bool(separate) == (name == "smooth a8")  # Fused experts have no inputs of their own to round.
    logits = scored(input_ids=WINDOWS).logits
    hooks.check_reached()
    expected = calibrated(input_ids=WINDOWS).logits
    if hooks.to_round:
        assert torch.equal(logits, expected)  # A quotient that is rounded otherwise is another step of eight bits.
    elif CHAINS[name].needs_data:
        torch.testing.assert_close(logits, expected)


@torch.no_grad()
def test_an_expert_learns_from_its_own_tokens(tmp_path):
    model, quant = mixture(), Gptq(**NATIVE)
    seen = []
    (tmp_path / "out").mkdir()
    chain.quantize(model, quant, WINDOWS, tmp_path / "parts", tmp_path / "out", nothing)
    weights, _ = read_checkpoint(tmp_path / "out")
    block = model.model.layers[0]
    block.mlp.experts[1].register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    model(input_ids=WINDOWS)
    x, name = torch.cat(seen), "model.layers.0.mlp.experts.1"
    original = block_linears(mixture())
    both = torch.cat([original[f"{name}.{part}"].weight for part in ("gate_proj", "up_proj")])
    expected = round_with_hessian(both, x.T @ x / len(x), quant, (), name)
    assert 0 < len(x) < WINDOWS.numel()
    given = torch.cat([weights[f"{name}.{part}"].codes for part in ("gate_proj", "up_proj")])
    assert (given == expected.codes).float().mean() > 0.99  # The order of sums may move a rare tie.


@torch.no_grad()
def test_an_expert_without_a_token_is_rounded_to_nearest_unless_it_is_given_all(tmp_path):
    codes = {}
    for every in (False, True):
        model = idle(mixture())
        if every:
            read_all(model)
        out = tmp_path / str(every)
        out.mkdir()
        chain.quantize(model, Gptq(**NATIVE), WINDOWS, tmp_path / f"parts {every}", out, nothing)
        codes[every] = read_checkpoint(out)[0]["model.layers.0.mlp.experts.3.down_proj"].codes
    nearest = round_to_nearest(block_linears(mixture())["model.layers.0.mlp.experts.3.down_proj"].weight, Gptq(**NATIVE)).codes
    assert torch.equal(codes[False], nearest) and not torch.equal(codes[True], nearest)
    static = Rtn(**GROUPS, activations=Activations(8, 0))
    with pytest.raises(UserError, match=r"reached model\.layers\.0\.mlp\.experts\.3, .* calib\.all_experts=true"):
        chain.quantize(idle(mixture()), static, WINDOWS, tmp_path / "parts", tmp_path / "none", nothing)


@torch.no_grad()
def test_an_interrupted_mixture_resumes_to_the_same_result(tmp_path):
    notes, outs = [], [tmp_path / "first", tmp_path / "resumed"]
    for out in outs:
        out.mkdir()
        note = lambda *_, note, **__: notes.append(note.partition(" changed")[0])  # noqa: E731
        chain.quantize(mixture(), Gptq(**NATIVE, activations=Activations(8)), WINDOWS, tmp_path / "parts", out, note)
        last = tmp_path / "parts" / "model.layers.1"
        last.rename(tmp_path / f"taken away {len(notes)}")
    assert [note.partition(": ")[2] for note in notes] == ["weights", "weights", "resumed", "weights"]
    first, resumed = (read_checkpoint(out)[0] for out in outs)
    assert all(torch.equal(first[name].codes, resumed[name].codes) for name in first)


@torch.no_grad()
def test_an_expert_without_a_token_has_the_bits_of_its_recipe(tmp_path):
    (out := tmp_path / "out").mkdir()
    name = "model.layers.0.mlp.experts.3.down_proj"
    chain.quantize(idle(mixture()), Gptq(**NATIVE).with_layer_bits({name: 2}), WINDOWS, tmp_path / "parts", out, nothing)
    assert read_checkpoint(out)[0][name].bits == 2
