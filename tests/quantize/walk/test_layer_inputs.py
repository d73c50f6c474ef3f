"""Layers that read the same input are found together, and the statistics of inputs are those of their definition."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.quantize.walk.blocks import EnoughError, walk
from bitsure.quantize.walk.layer_inputs import channel_ranges, layers_by_input, measure
from tests.builders.families import GROUPED, build
from tests.builders.quantizing import WINDOWS


@torch.no_grad()
def test_the_statistics_are_those_of_the_definition():
    model = build("llama", **GROUPED)
    prefix, block, feed = next(walk(model, WINDOWS))
    groups = layers_by_input(block, feed)
    assert [sorted(group) for group in groups] == [
        ["self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj"],
        ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
    ]
    assert prefix == "model.layers.0"
    down, seen = block.mlp.down_proj, []
    handle = down.register_forward_pre_hook(lambda _, x: seen.append(x[0].flatten(0, -2).double()))
    inputs = measure([{"o": block.self_attn.o_proj}, {"down": down}], feed, means=True)[1]
    handle.remove()
    x = torch.cat(seen)
    assert inputs.tokens == len(x) == WINDOWS.numel()
    assert torch.allclose(inputs.hessian.double(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    assert torch.allclose(inputs.mean_abs.double(), x.abs().mean(0), rtol=1e-5)


def test_a_layer_that_no_token_reaches_is_named():
    block = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "idle": torch.nn.Linear(2, 2)})
    with pytest.raises(UserError, match="No token of the calibration text reaches idle: the model does not run"):
        layers_by_input(block, lambda: block["a"](torch.ones(1, 2)))


def test_an_expert_that_gets_no_token_in_a_batch_has_the_range_of_the_others():
    block = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2)})
    batches = [torch.empty(0, 2), torch.tensor([[1.0, -2.0], [3.0, -1.0]]), torch.empty(0, 2)]
    (found,) = channel_ranges([{"a": block["a"]}], _each(block["a"], batches))
    assert [one.tolist() for one in found] == [[1, -2], [3, -1]]


def _each(layer: torch.nn.Module, batches: list[torch.Tensor]):
    def feed() -> None:
        for batch in batches:
            with suppress(EnoughError):
                layer(batch)

    return feed
