from __future__ import annotations

import pytest
import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.layer_inputs import channel_ranges, layers_by_input
from pocket.outliers import inject
from tests.builders.families import FAMILIES, build
from tests.builders.quantizing import ALL, WINDOWS


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(WINDOWS).logits


def largest_over_median(model) -> float:
    """Of max|x_i| over channels, the largest of all inputs of the first block."""
    _, block, feed = next(walk(model, WINDOWS))
    largest = [torch.maximum(high, -low) for low, high in channel_ranges(layers_by_input(block, feed), feed)]
    return max((one.max() / one.median()).item() for one in largest)


@pytest.mark.parametrize("family", sorted(set(ALL) - {"mixtral"}))
def test_outliers_leave_the_function_as_it_was(family):
    model = build(family, **ALL[family])
    before, ratio = logits(model), largest_over_median(model)
    norms = inject(model, WINDOWS, strength=64, every=32)
    assert len(norms) >= 2 and largest_over_median(model) > 5 * ratio
    assert (logits(model) - before).norm() <= 1e-5 * before.norm()


def test_a_model_without_such_norms_is_refused():
    model = build("opt", **FAMILIES["opt"])
    for layer in model.model.decoder.layers:
        layer.self_attn_layer_norm = layer.final_layer_norm = nn.Identity()
    with pytest.raises(UserError, match="nowhere to put outliers"):
        inject(model, WINDOWS, strength=64, every=32)
