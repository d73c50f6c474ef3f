"""What a checkpoint says of run time, written and read."""

from __future__ import annotations

import torch

from bitsure.config.number_formats import Activations, KeysValues
from bitsure.quantize.inference import scheme as runtime
from bitsure.quantize.inference.scheme import Runtime


def test_what_a_checkpoint_says_comes_back(tmp_path):
    written = Runtime(
        Activations(8, 0), KeysValues(format="fp8_e4m3"), [], {"a.b": torch.tensor([-1.0, 2.0])}, {"scale": {"a": 2.0}}
    )
    runtime.write(tmp_path, written)
    back = runtime.read(tmp_path)
    assert (back.activations, back.kv, back.moved) == (written.activations, written.kv, written.moved)
    assert torch.equal(back.spans["a.b"], written.spans["a.b"])
    assert not runtime.read(tmp_path / "nothing")
