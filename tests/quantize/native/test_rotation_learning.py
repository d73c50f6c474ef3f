from __future__ import annotations

import pytest
import torch

from bitsure.config.number_formats import Activations
from bitsure.config.rotation_settings import RotationSettings
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native import chain, rotation_learning
from bitsure.quantize.native.rotation_learning import cayley_step
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.proof.weight_changes import prove
from tests.builders.families import build
from tests.builders.quantizing import ALL, NATIVE, WINDOWS, nothing

SETTINGS = {"activations": Activations(4), "transforms": ["rotate"]}


@pytest.mark.parametrize("keep_ones", [False, True])
def test_steps_stay_orthogonal_and_go_down(keep_ones):
    """Towards an orthogonal matrix: the distance to it is the loss, and a long step is as long as its gradient allows."""
    target = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    rotation, ones = torch.eye(12, dtype=torch.float64), torch.ones(12, dtype=torch.float64)
    losses = []
    for _ in range(60):
        losses.append((rotation - target).square().sum().item())
        rotation = cayley_step(rotation, 2 * (rotation - target), 1.5, keep_ones)
    assert losses[-1] < 0.9 * losses[0]
    assert torch.allclose(rotation @ rotation.T, torch.eye(12).double(), atol=1e-12)
    assert torch.allclose(rotation @ ones, ones, atol=1e-12) == keep_ones


@pytest.mark.parametrize(("family", "kinds"), [("llama", ["r1", "r2", "r4"]), ("gpt2", ["r1", "r2"]), ("opt", ["r2"])])
def test_the_loss_of_the_rounded_model_falls_and_its_function_stays(family, kinds, tmp_path):
    """The proof runs the model rotated by what was learned, before anything is rounded."""
    (tmp_path / "out").mkdir()
    quant = Rtn(4, -1, False, **SETTINGS, rotation=RotationSettings(kinds, steps=6))
    assert quant.needs_data
    chain.quantize(build(family, **ALL[family]), quant, WINDOWS, tmp_path / "parts", tmp_path / "out", nothing)
    model = build(family, **ALL[family])
    effect = prove(model, load_checkpoint(tmp_path / "out", model), WINDOWS).transforms["rotate"]
    before, after = effect.learned_loss
    assert after < before
    assert effect.rotations[kinds[0]].startswith("orthogonal")


def test_a_broken_off_run_does_not_learn_again(tmp_path, monkeypatch):
    quant = Gptq(**NATIVE, **SETTINGS, rotation=RotationSettings(steps=2))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    chain.quantize(build("llama", **ALL["llama"]), quant, WINDOWS, tmp_path / "parts", tmp_path / "first", nothing)
    monkeypatch.setattr(rotation_learning, "learn", None)
    chain.quantize(build("llama", **ALL["llama"]), quant, WINDOWS, tmp_path / "parts", tmp_path / "second", nothing)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second
