"""The same numbers as torchao and compressed-tensors, bit for bit, where they have the same format.

compressed-tensors rounds the largest value of an MX block before it takes its power of two, which the MX specification does
not: with MX formats it is no oracle.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from bitsure.config.number_formats import Activations, KeysValues, Numbers
from bitsure.config.paths import PROJECT
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.weights.fake_quantize import fake_quantize
from tests.builders.marks import library

MXFP = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4")


@pytest.mark.parametrize("library", ["compressed-tensors", "torchao"])
def test_what_develops_this_brings_the_oracles(library):
    assert f"\n{library}==" in (PROJECT / "requirements.txt").read_text()


def values(rows: int = 300, width: int = 128) -> torch.Tensor:
    """Of all sizes, with zeros, halves, and blocks of zeros."""
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(rows, width, generator=generator) * torch.logspace(-12, 12, rows)[:, None]
    found[::7, ::3] = 0
    found[5] = (torch.arange(width) - 40) / 8
    found[6] = 0
    return found


def of_torchao(name: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scales' bits, codes, and values."""
    mx = library("torchao.prototype.mx_formats.mx_tensor")
    from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
    from torchao.prototype.mx_formats.kernels import unpack_uint4

    kinds = {"mxfp8_e4m3": torch.float8_e4m3fn, "mxfp8_e5m2": torch.float8_e5m2, "mxfp4": torch.float4_e2m1fn_x2}
    kinds |= {"mxfp6_e2m3": DTYPE_FP6_E2M3, "mxfp6_e3m2": DTYPE_FP6_E3M2}
    scales, codes = mx.to_mx(x, kinds[name], 32, mx.ScaleCalculationMode.FLOOR)
    found = mx.to_dtype(codes, scales, kinds[name], 32, torch.float32)
    if name == "mxfp4":
        codes = unpack_uint4(codes).reshape(x.shape)
    return scales.view(torch.uint8), codes.view(torch.uint8), found


@pytest.mark.parametrize("name", MXFP)
def test_mx_weights_and_activations_are_torchaos(name):
    x = values()
    scales, codes, expected = of_torchao(name, x)
    ours = round_to_nearest(x, Rtn(format=name))
    assert torch.equal(ours.scales, scales) and torch.equal(ours.codes, codes)
    assert torch.equal(ours.dequantize(), expected)
    assert torch.equal(fake_quantize(x, Activations(format=name)), expected)


def test_nvfp4_weights_are_those_of_compressed_tensors():
    """Values, and what its own unpacking makes of our codes and scales."""
    quantization = library("compressed_tensors.quantization")
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize as theirs
    from compressed_tensors.quantization.quant_scheme import NVFP4A16
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 2, 64)[:, None]
    x[::7, ::3], x[5], x[6] = 0, (torch.arange(128) - 40) / 8, 0
    groups = x.unflatten(1, (-1, 16))
    whole = generate_gparam(x.amin(), x.amax())
    scales, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), NVFP4A16["weights"], global_scale=whole)
    expected = theirs(x, scales.float(), torch.zeros_like(scales.float()), NVFP4A16["weights"], global_scale=whole)
    ours = round_to_nearest(x, Rtn(format="nvfp4"))
    assert isinstance(NVFP4A16["weights"], quantization.QuantizationArgs)
    assert torch.equal(ours.scales, scales.to(torch.float8_e4m3fn).view(torch.uint8)) and ours.tensor_scale == whole
    assert torch.equal(ours.dequantize(), expected)


def test_nvfp4_codes_are_decoded_by_gguf_as_by_us():
    """Of its blocks of 64: four scales of FP8, then codes, the first half of each 16 in the lower bits."""
    gguf = pytest.importorskip("gguf")
    ours = round_to_nearest(torch.randn(8, 128, generator=torch.Generator().manual_seed(0)), Rtn(format="nvfp4"))
    halves = ours.codes.view(8, 2, 4, 2, 8)  # rows, blocks of 64, of 16, their halves
    blocks = torch.cat([ours.scales.view(8, 2, 4), (halves[..., 0, :] | halves[..., 1, :] << 4).flatten(2)], -1).flatten(1)
    found = gguf.dequantize(blocks.numpy(), gguf.GGMLQuantizationType.NVFP4)
    assert torch.equal(torch.from_numpy(found), dataclasses.replace(ours, tensor_scale=torch.tensor(1.0)).dequantize())


def test_int4_with_scales_in_fp8_is_that_of_compressed_tensors():
    """Its own scales are fitted to 7.5; with those fitted to 7 and rounded by torch its values are ours."""
    quantization = library("compressed_tensors.quantization")
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize as theirs
    from compressed_tensors.quantization.utils import generate_gparam

    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 2, 64)[:, None]
    x[::7, ::3], x[5], x[6] = 0, (torch.arange(256) - 80) / 16, 0
    largest = x.unflatten(1, (-1, 128)).abs().amax(-1)
    whole = generate_gparam(x.amin(), x.amax(), quant_data=SimpleNamespace(max=7.0))
    scales = (whole * (largest / 7)).to(torch.float8_e4m3fn).float()
    scales[scales == 0] = torch.finfo(torch.float8_e4m3fn).eps  # as it replaces a scale of 0
    args = quantization.QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=128)
    expected = theirs(x, scales / whole, torch.zeros_like(scales), args)
    lowest = -7 * (scales / whole).repeat_interleave(128, 1)  # we have no -8, which a scale of few digits can reach
    ours = round_to_nearest(x, Rtn(format="int4_fp8", group_size=128))
    assert torch.equal(ours.dequantize(), expected.maximum(lowest)) and (expected < lowest).sum() < 10


def of_compressed_tensors(x: torch.Tensor, bits: int, kind: str, symmetric: bool, group_size: int | None) -> torch.Tensor:
    """Its dynamic quantization of activations (1, tokens, width), each token's or each group's."""
    quantization = library("compressed_tensors.quantization")
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize as theirs
    from compressed_tensors.quantization.utils.helpers import compute_dynamic_scales_and_zp

    strategy = "token" if group_size is None else "group"
    args = quantization.QuantizationArgs(
        num_bits=bits, type=kind, symmetric=symmetric, strategy=strategy, group_size=group_size, dynamic=True
    )
    scales, zeros = compute_dynamic_scales_and_zp(x[None], args, torch.nn.Linear(2, 2))
    return theirs(x[None], scales, zeros, args)[0]


@pytest.mark.parametrize("group_size", [None, 32])
@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_integers_are_those_of_compressed_tensors(bits, group_size):
    x = values()
    ours = fake_quantize(x, Activations(bits, group_size or -1, True))
    assert torch.equal(ours, of_compressed_tensors(x, bits, "int", True, group_size))


@pytest.mark.parametrize("group_size", [None, 32])
def test_fp8_is_that_of_compressed_tensors(group_size):
    x = values()
    ours = fake_quantize(x, Numbers(format="fp8_e4m3", group_size=group_size or -1))
    assert torch.equal(ours, of_compressed_tensors(x, 8, "float", True, group_size))


@pytest.mark.parametrize("bits", [4, 8])
def test_asymmetric_integers_are_those_of_compressed_tensors_but_for_halves(bits):
    """It adds the zero point before rounding, which takes halves to another even number."""
    x = values()
    ours, theirs = fake_quantize(x, KeysValues(bits)), of_compressed_tensors(x, bits, "int", False, None)
    steps = (x.amax(1).clamp(min=0) - x.amin(1).clamp(max=0))[:, None] / (2**bits - 1)
    differ = (ours - theirs).abs() > steps * 1e-3
    assert differ.float().mean() < 1e-3 and ((ours - theirs).abs() <= 1.001 * steps).all()
