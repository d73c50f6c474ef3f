from __future__ import annotations

import pytest
import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint, read_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.libraries import hqq
from bitsure.quantize.libraries.hqq import Hqq
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk.targets import block_linears, matrix
from tests.builders.families import FAMILIES, build
from tests.builders.marks import library
from tests.builders.plans import plan

library("hqq")
WINDOWS = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [64, -1])
def test_weights_are_those_of_hqqs_layer(bits, group_size):
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer

    torch.manual_seed(0)
    layer = nn.Linear(192, 16, bias=False)
    found = hqq.quantize_weight(layer.weight, Hqq(bits, group_size))
    settings = BaseQuantizeConfig(nbits=bits, group_size=group_size if group_size > 0 else None, axis=1)
    theirs = HQQLinear(layer, settings, compute_dtype=torch.float16, device="cpu", del_orig=False)
    assert torch.equal(found.scales.flatten(), theirs.meta["scale"].flatten())
    assert torch.equal(found.zeros.flatten(), theirs.meta["zero"].flatten())
    codes = Quantizer.unpack[theirs.meta["packing"]](theirs.W_q, dtype=torch.int32)
    assert torch.equal(found.codes.flatten(), codes.flatten()[: found.codes.numel()])
    difference = (found.dequantize() - theirs.dequantize().float()).abs().max()
    assert difference <= found.scales.float().max() * 2**bits * 2**-10  # theirs is computed in float16
    assert found.storage_bits == 192 * 16 * bits + found.scales.numel() * 32


@pytest.mark.parametrize("width", [40, 64, 172])
def test_odd_widths_have_a_shorter_last_group_and_come_back_from_disk_exactly(tmp_path, width):
    torch.manual_seed(0)
    weight = torch.randn(7, width)
    found = hqq.quantize_weight(weight, Hqq(4, 64))
    assert found.scales.shape == (7, -(-width // 64))
    assert (found.dequantize() - weight).norm() / weight.norm() < 0.12
    write_checkpoint(tmp_path, {"a": found})
    back, others = read_checkpoint(tmp_path)
    assert torch.equal(back["a"].dequantize(), found.dequantize()) and back["a"].storage_bits == found.storage_bits
    assert not others


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_small_real_model(tiny_model, calib_file, tmp_path, bits):
    planned = plan(tiny_model, Hqq(bits, 64), calib_file)
    check_plan(planned, Store(tmp_path))
    made = ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")
    model, _ = load_model(tiny_model, "float32")
    put_into(model, made.checkpoint)
    assert made.proof.bits_per_weight == bits + 32 / 64 and made.proof.group_sizes == {"64": 12}
    assert len(made.proof.modules_quantized) == 12
    assert made.proof.relative_error < {2: 0.6, 3: 0.25, 4: 0.12, 8: 0.01}[bits]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mixtral"])
def test_every_family(family, tmp_path):
    model = build(family, **FAMILIES[family])
    found = hqq.quantize(model, Hqq(4, 64))
    write_checkpoint(tmp_path, found)
    report = prove(model, load_checkpoint(tmp_path, model), WINDOWS)
    assert 0.05 < report.relative_error < 0.15
    put_into(model, tmp_path)
    assert all(torch.equal(matrix(layer), found[name].dequantize()) for name, layer in block_linears(model).items())


@pytest.mark.parametrize("group_size", [0, 4, 60])
def test_groups_that_hqq_does_not_take(group_size):
    with pytest.raises(UserError, match="multiples of 8"):
        Hqq(4, group_size)
