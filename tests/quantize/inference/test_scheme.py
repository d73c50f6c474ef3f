"""What a checkpoint says of run time, written and read."""

from __future__ import annotations

import torch

from bitsure.config.number_formats import Activations, KeysValues
from bitsure.quantize.inference.scheme import InferenceScheme


def test_what_a_checkpoint_says_comes_back(tmp_path):
    written = InferenceScheme(
        Activations(8, 0), KeysValues(format="fp8_e4m3"), [], {"a.b": torch.tensor([-1.0, 2.0])}, {"scale": {"a": 2.0}}
    )
    written.write(tmp_path)
    back = InferenceScheme.read(tmp_path)
    assert (back.activations, back.kv, back.transform_effects) == (written.activations, written.kv, written.transform_effects)
    assert torch.equal(back.static_ranges["a.b"], written.static_ranges["a.b"])
    assert not InferenceScheme.read(tmp_path / "nothing")
