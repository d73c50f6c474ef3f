from __future__ import annotations

import torch

from bitsure.quantize.checkpoint import read_checkpoint
from bitsure.quantize.checkpoint.read_checkpoint import StoredWeights
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn


def test_a_file_is_opened_once_however_many_weights_are_read(tmp_path, monkeypatch):
    """To open one parses its header, of all tensors."""
    weights = {name: round_to_nearest(torch.randn(6, 32), Rtn(4, 8, True)) for name in ("a", "a.b", "a.b.c", "d")}
    write_checkpoint(tmp_path, weights, {"a.bias": torch.ones(6), "norm.weight": torch.ones(6)})
    opened = []
    monkeypatch.setattr(
        read_checkpoint,
        "safe_open",
        lambda *given, _open=read_checkpoint.safe_open, **how: opened.append(given) or _open(*given, **how),
    )
    stored = StoredWeights(tmp_path)
    assert set(stored.others()) == {"a.bias", "norm.weight"} and len(stored) == 4
    assert all(torch.equal(stored[name].dequantize(), weight.dequantize()) for name, weight in weights.items())
    assert len(opened) == 1
