from __future__ import annotations

import torch

from bitsure.models.load import load_model
from bitsure.scoring.local.diagnose import first_broken_module


def test_the_first_layer_with_a_value_that_is_not_finite_is_named(tiny_model):
    model = load_model(tiny_model, "float32")[0]
    assert first_broken_module(model, [5, 6, 7]) is None
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.weight[3, 3] = float("nan")
    assert first_broken_module(model, [5, 6, 7]) == "model.decoder.layers.1.fc1"
