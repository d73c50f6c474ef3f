from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from bitsure.base.errors import UserError
from bitsure.config.quantizers import Tuning
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.native.tuning import LowRank, tune
from bitsure.quantize.walk.blocks import Feed
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.weights.fake_quantize import straight_through

QUANT = Rtn(3, -1, False, tuning=Tuning(2, epochs=40, lr=5e-3))


def feed(block: nn.Module) -> Feed:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(4, 8, 16, generator=generator) for _ in range(3)]
    return Feed(batches, block, Replay(block, batches))


def block(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).requires_grad_(False)


def test_gradients_pass_rounding_as_if_there_were_none():
    values = torch.tensor([0.2, 1.7], requires_grad=True)
    found = straight_through(values, values.detach().round())
    (found * torch.tensor([3.0, 5.0])).sum().backward()
    assert found.tolist() == [0, 2] and values.grad.tolist() == [3, 5]
    assert straight_through(values.detach(), torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("layer", [nn.Linear(16, 24), Conv1D(24, 16)], ids=["linear", "conv1d"])
def test_a_weight_is_rounded_with_its_change(layer):
    change = LowRank(layer, QUANT, 2, torch.Generator().manual_seed(0))
    assert change.A.shape == (2, 16) and change.B.shape == (24, 2) and not change.B.any()
    change.B.data.normal_()
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    found = change(layer.weight)
    whole = weight + change.B @ change.A
    torch.testing.assert_close(found.T if isinstance(layer, Conv1D) else found, round_to_nearest(whole, QUANT).dequantize())
    change.rounds = False
    torch.testing.assert_close(change(layer.weight), whole.T if isinstance(layer, Conv1D) else whole)


def test_tuning_brings_the_rounded_block_nearer_and_leaves_ordinary_layers():
    torch.manual_seed(0)
    tuned = block(nn.Linear(16, 24), nn.GELU(), Conv1D(16, 24))
    given = feed(tuned)
    exact = [given.run(states) for states in given.batches]
    before = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    ratio = tune(tuned, "block", given, exact, QUANT, QUANT.tuning)
    after = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    assert after.keys() == before.keys() and type(tuned[0]) is nn.Linear and type(tuned[2]) is Conv1D
    for name in ("0.weight", "2.weight"):
        change = after[name] - before[name]
        assert torch.linalg.matrix_rank(change, tol=1e-5) == 2  # not rounded yet
    for name in ("0.bias", "2.bias"):
        assert torch.equal(after[name], before[name])

    def error(state: dict) -> float:
        rounded = {name: tensor.clone() for name, tensor in state.items()}
        rounded["0.weight"] = round_to_nearest(state["0.weight"], QUANT).dequantize()
        rounded["2.weight"] = round_to_nearest(state["2.weight"].T, QUANT).dequantize().T
        tuned.load_state_dict(rounded)
        return sum((given.run(states) - out).square().mean().item() for states, out in zip(given.batches, exact, strict=True))

    assert ratio < 0.95 and ratio == pytest.approx((error(after) / error(before)) ** 0.5, rel=1e-3)


def test_where_tuning_gains_nothing_the_weights_stay():
    torch.manual_seed(0)
    tuned = block(nn.Linear(16, 16))
    tuned[0].weight.copy_(round_to_nearest(tuned[0].weight, QUANT).dequantize())  # rounds to itself: no error to lower
    given = feed(tuned)
    exact = [given.run(states) for states in given.batches]
    before = tuned[0].weight.clone()
    assert tune(tuned, "block", given, exact, QUANT, QUANT.tuning) == 1.0 and torch.equal(tuned[0].weight, before)


def test_a_rate_that_diverges_is_an_error():
    tuned = block(nn.Linear(16, 16))
    given = feed(tuned)
    exact = [torch.full_like(states, torch.nan) for states in given.batches]
    with pytest.raises(UserError, match=r"block gives NaN or infinite values after tuning\. Lower quant\.tuning\.lr"):
        tune(tuned, "block", given, exact, QUANT, QUANT.tuning)


def test_layers_of_zeros_are_not_tuned():
    torch.manual_seed(0)
    pruned = block(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
    pruned[2].weight.zero_()
    given = feed(pruned)
    exact = [torch.ones(4, 8, 16) for _ in given.batches]  # Something to learn, if the layer could.
    tune(pruned, "block", given, exact, QUANT, QUANT.tuning)
    assert not pruned[2].weight.any()
    pruned[0].weight.zero_()
    assert tune(pruned, "block", feed(pruned), exact, QUANT, QUANT.tuning) == 1
