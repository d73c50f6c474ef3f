"""What a model does while trees run through it, and that it is afterwards as it was."""

from __future__ import annotations

import pytest
import torch

from bitsure.scoring import forward, rows
from tests.families import FAMILIES, build

ASKED = {0: ([5, 6, 7, 8, 9], [10, 11]), 1: ([5, 6, 7, 8, 9], [12])}  # six tokens are read, two of them predict


def mlp_of(block: torch.nn.Module) -> torch.nn.Module:
    found = getattr(block, "fc1", None) or getattr(block, "mlp", None)
    return found or pytest.skip("its MLP has another name in this transformers")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_mlp_runs_where_something_is_scored(family):
    model, seen = build(family, **FAMILIES[family]), []
    blocks = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 2)
    for block in blocks:
        mlp_of(block).register_forward_hook(lambda mlp, inputs, out: seen.append(inputs[0].flatten(0, -2).shape[0]))
    trees = rows.trees(ASKED, 64, 10_000)
    forward.shared(model, trees, ASKED)
    assert seen == [6, 2]
    seen.clear()
    forward.plain(model, rows.chains(ASKED), ASKED)
    assert seen == [12, 12]  # two inputs of six and five tokens, one padded


def test_activations_are_in_place_for_a_batch_only():
    model = build("opt", **FAMILIES["opt"])
    relu, seen = model.model.decoder.layers[0].activation_fn, []
    relu.register_forward_hook(lambda module, inputs, out: seen.append(module.inplace))
    forward.shared(model, rows.trees(ASKED, 64, 10_000), ASKED)
    assert (seen, relu.inplace) == ([True], False)
