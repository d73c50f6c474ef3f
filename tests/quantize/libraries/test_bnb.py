from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.models.load import load_model
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint, read_checkpoint
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint
from bitsure.quantize.libraries import bnb
from bitsure.quantize.libraries.bnb import Bnb
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.proof.weight_changes import prove
from bitsure.quantize.walk.targets import block_linears, matrix
from tests.builders.families import FAMILIES, build
from tests.builders.marks import library
from tests.builders.plans import plan

bitsandbytes = library("bitsandbytes")
KINDS = {
    "nf4": Bnb("nf4"),
    "nf4-double": Bnb("nf4", True),
    "fp4": Bnb("fp4"),
    "fp4-double": Bnb("fp4", True),
    "int8": Bnb("int8"),
}
WINDOWS = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(0))


def dequantized(weight: torch.Tensor, quant: Bnb) -> torch.Tensor:
    """What bitsandbytes' own layers hold."""
    from bitsandbytes import functional

    out, width = weight.shape
    if quant.type == "int8":
        data = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False).to("cpu")
        assert data.dtype == torch.int8
        return functional.int8_vectorwise_dequant(data.data, data.SCB)
    layer = bitsandbytes.nn.Linear4bit(width, out, bias=False, compress_statistics=quant.double_quant, quant_type=quant.type)
    layer.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=quant.double_quant, quant_type=quant.type
    ).to("cpu")
    # as one long row: bitsandbytes 0.50.0 misplaces the blocks of rows of 32 or 96 on CPUs with AVX-512
    state = layer.weight.quant_state
    state.shape = torch.Size([1, weight.numel()])
    return functional.dequantize_4bit(layer.weight.data, state).view(weight.shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(8, 64), (64, 172), (172, 64), (64, 96), (32, 32), (5, 7)])
def test_weights_are_those_of_bitsandbytes_and_come_back_from_disk_exactly(tmp_path, kind, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    found = bnb.quantize_weight(weight, KINDS[kind])
    assert torch.allclose(found.dequantize(), dequantized(weight, KINDS[kind]), rtol=1e-6, atol=0)
    if kind != "int8":
        assert torch.equal(found.dequantize(), dequantized(weight, KINDS[kind]))
    write_checkpoint(tmp_path, {"a": found})
    back, others = read_checkpoint(tmp_path)
    assert torch.equal(back["a"].dequantize(), found.dequantize()) and not others
    assert back["a"].storage_bits == found.storage_bits


def test_bits_are_counted():
    weight = torch.randn(64, 256)  # 256 blocks
    assert bnb.quantize_weight(weight, Bnb("nf4")).storage_bits == 64 * 256 * 4 + 256 * 32
    assert bnb.quantize_weight(weight, Bnb("nf4", True)).storage_bits == 64 * 256 * 4 + 256 * 8 + 32 + 32
    assert bnb.quantize_weight(weight, Bnb("int8")).storage_bits == 64 * 256 * 8 + 64 * (32 + 8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_real_model(tiny_model, calib_file, tmp_path, kind):
    planned = plan(tiny_model, KINDS[kind], calib_file)
    check_plan(planned, Store(tmp_path))
    made = ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")
    ours, _ = load_model(tiny_model, "float32")
    originals = {name: matrix(layer).detach().clone() for name, layer in block_linears(ours).items()}
    put_into(ours, made.checkpoint)
    for name, layer in block_linears(ours).items():
        assert torch.allclose(layer.weight, dequantized(originals[name], KINDS[kind]), rtol=1e-6, atol=0)
    assert len(made.proof.modules_quantized) == 12 and made.proof.other_tensors_rounded == []
    assert made.proof.not_applied == (["activations"] if kind == "int8" else [])
    assert made.proof.relative_error < (0.01 if kind == "int8" else 0.15)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mixtral"])
def test_every_family(family, tmp_path):
    model = build(family, **FAMILIES[family])
    found = bnb.quantize(model, Bnb("nf4", True))
    write_checkpoint(tmp_path, found)
    report = prove(model, load_checkpoint(tmp_path, model), WINDOWS)
    assert report.group_sizes == {"64": len(found)} and 0.05 < report.relative_error < 0.15
    put_into(model, tmp_path)
    assert all(torch.equal(matrix(layer), found[name].dequantize()) for name, layer in block_linears(model).items())


def test_int8_has_no_blocks():
    with pytest.raises(UserError, match="int8 has one scale a row"):
        Bnb("int8", True)
