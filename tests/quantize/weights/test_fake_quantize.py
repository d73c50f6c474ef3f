"""What comes out of fake quantization is a number of the format: a code within its range times one scale a group."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bitsure.config.number_formats import ELEMENTS, FP8_SCALED, MX, Numbers
from bitsure.quantize.weights.fake_quantize import HUGE, TINY, fake_quantize, on_grid, range_of, widest
from bitsure.quantize.weights.grid import fit_grid
from bitsure.quantize.weights.small_floats import decode

SETTINGS = [Numbers(bits, group, symmetric) for bits, group in ((2, -1), (4, 5), (8, -1)) for symmetric in (True, False)]
SETTINGS += [Numbers(format=name) for name in ELEMENTS if name not in FP8_SCALED] + [Numbers(format="fp8_e4m3", group_size=7)]
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
matrices = arrays("float32", array_shapes(min_dims=2, max_dims=2, max_side=40), elements=finite)
few, fewer = settings(max_examples=12), settings(max_examples=5)
named = pytest.mark.parametrize("numbers", SETTINGS, ids=lambda one: f"{one.label}-{one.group_size}-{one.symmetric}")


@named
@few
@given(values=matrices)
def test_values_are_representable(numbers, values):
    """Of any size: zeros, subnormal and huge ones among them."""
    values = torch.from_numpy(values)
    found = fake_quantize(values, numbers)
    assert found.shape == values.shape and found.dtype == values.dtype and found.isfinite().all()
    assert all(torch.isin(after, allowed).all() for allowed, _, after in with_grids(values, found, numbers))


@named
@fewer
@given(values=matrices)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_they_are_the_types_nearest_to_representable_ones(numbers, dtype, values):
    """A number of the format times its float32 scale, rounded once more: to the type's nearest, and to no other."""
    values = torch.from_numpy(values).clamp(-3e4, 3e4).to(dtype)
    found = fake_quantize(values, numbers)
    assert found.dtype == dtype
    for allowed, before, after in with_grids(values, found, numbers):
        assert torch.isin(after, allowed.to(dtype)).all()
        if numbers.format in MX and dtype == torch.bfloat16:  # every one of its numbers is one of the type
            assert torch.isin(after.float(), allowed).all()
        # so what is lost beside rounding to the grid is half a place of the type, or of its subnormal numbers
        step = allowed.sort().values.diff().max() if len(allowed) > 1 else 0.0
        inside = (before.float() >= allowed.min()) & (before.float() <= allowed.max())
        place = torch.finfo(dtype).eps / 2 * after.float().abs() + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        assert ((after.float() - before.float()).abs() <= step / 2 * 1.0001 + place)[inside].all()


def test_how_far_off_its_grid_half_precision_is():
    """8 bits over a range of 0 to 255: every code is one of bfloat16's numbers; over 0 to 100 the steps of 0.39 are not."""
    apart = []
    for top in (255.0, 100.0):
        codes = fake_quantize(torch.linspace(0, top, 256).bfloat16(), Numbers(8, -1, False)).float() / (top / 255)
        apart.append((codes - codes.round()).abs().max().item())
    assert apart[0] == 0 and 0.3 < apart[1] <= 0.5


def with_grids(values: torch.Tensor, found: torch.Tensor, numbers: Numbers):
    """Each group's representable numbers, float32, its values, and what became of them."""
    size = numbers.group_size if numbers.group_size > 0 else values.shape[1]
    for row, rounded in zip(values, found, strict=True):
        for group, after in zip(row.split(size), rounded.split(size), strict=True):
            yield representable(group.float(), numbers), group, after


def representable(row: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    """By the definitions, in Python's own numbers."""
    largest = row.abs().max().item()
    if numbers.format == "int":
        levels = 2**numbers.bits - 1
        low, high = min(row.min().item(), 0.0), max(row.max().item(), 0.0)
        furthest = widest(numbers.bits)
        low, high, largest = max(low, -furthest), min(high, furthest), min(largest, furthest)
        span = torch.tensor(2.0 * largest if numbers.symmetric else high - low, dtype=torch.float64)
        spread = (span / 2).float()  # of its half, which does not overflow
        scale = (spread.double() / (levels / 2)).float().clamp(TINY)
        zero = 2 ** (numbers.bits - 1) if numbers.symmetric else int((-torch.tensor(low) / scale).round().clamp(0, levels))
        return torch.arange(-zero, levels - zero + 1) * scale
    if numbers.format in MX:
        element = ELEMENTS[numbers.format]
        exponent = max(math.frexp(largest)[1] - 1 if largest else -127, -126 if largest >= TINY else -127)
        scale = 2.0 ** max(min(exponent - element.e_max, 127), -127)
        return (decode(torch.arange(2**element.bits), element).double() * scale).float()
    element = ELEMENTS[numbers.format]
    scale = (torch.tensor(largest) / element.largest).clamp(TINY)
    return decode(torch.arange(2**element.bits), element) * scale


@named
@few
@given(values=matrices)
def test_no_value_is_further_away_than_its_format_says(numbers, values):
    """Half a step; for what is as large as a group's largest, and beyond the largest number, what saturation takes."""
    values = torch.from_numpy(values)
    values = torch.where(values.abs() < 1e-30, 0.0, values)
    change = (fake_quantize(values, numbers) - values).abs()
    largest = values.abs().amax(-1, keepdim=True)
    if numbers.format == "int":
        step = largest / ((2**numbers.bits - 1) / 2)
        half = numbers.symmetric & (largest < 0.74 * HUGE)  # beyond that the last code of 2 bits would not be finite
        assert (change <= step * torch.where(half, 0.5001, 1.0001)).all()
    else:
        element = ELEMENTS[numbers.format]
        relative = 2.0 ** -(element.mantissa_bits + 1)
        saturated = 1 - element.largest / 2.0 ** (element.e_max + 1)
        assert (change <= largest * max(relative, saturated)).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_huge_values_use_the_whole_range(bits, symmetric):
    """What is 2¹²⁶ times as large is rounded as if it was not; at the very end of float32 it stays finite, within a step."""
    values = torch.tensor([-2.5, -1.0, 0.3, 1.7, 2.5, 0.0])
    numbers = Numbers(bits, -1, symmetric)
    exact = fake_quantize(values, numbers)
    assert torch.equal(fake_quantize(values * 2.0**126, numbers) / 2.0**126, exact)
    ends = torch.tensor([-HUGE, HUGE, 0.0])
    found = fake_quantize(ends, numbers)
    assert ((found - ends).abs() <= HUGE / ((2**bits - 1) / 2)).all() and found.isfinite().all()


@named
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_group_that_is_not_finite_becomes_nan_and_its_neighbours_do_not(numbers, broken):
    values = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    values[1, 3] = broken
    found = fake_quantize(values, numbers)
    size = numbers.group_size if numbers.group_size > 0 else 70
    assert found[1, :size].isnan().all() and found[[0, 2]].isfinite().all() and found[1, size:].isfinite().all()


@named
@few
@given(values=matrices)
def test_codes_and_scales_are_what_values_are_made_of(numbers, values):
    values = torch.from_numpy(values)
    units, scales, zeros = on_grid(values, numbers)
    groups = torch.arange(values.shape[1]) // (numbers.group_size if numbers.group_size > 0 else values.shape[1])
    assert torch.equal(units * scales[:, groups], fake_quantize(values, numbers))
    if numbers.format == "int":
        codes = units + zeros[:, groups]
        assert torch.equal(codes, codes.round()) and codes.min() >= 0 and codes.max() < 2**numbers.bits


def test_a_block_of_fp4_by_hand():
    """max 5.6 → ⌊log₂⌋ = 2, less e_max = 2: scale 1. Halves go to the even code, what is beyond 6 becomes 6."""
    row = torch.tensor([5.6, -5.0, 2.5, 0.25, 0.75, -0.1, 1.25, 3.5] + [0.0] * 24)
    expected = torch.tensor([6.0, -4.0, 2.0, 0.0, 1.0, -0.0, 1.0, 4.0] + [0.0] * 24)
    assert torch.equal(fake_quantize(row, Numbers(format="mxfp4")), expected)
    assert torch.equal(fake_quantize(row * 2**-20, Numbers(format="mxfp4")), expected * 2**-20)
    assert fake_quantize(torch.tensor([7.9] + [0.0] * 31), Numbers(format="mxfp4"))[0] == 6


def test_a_block_of_int8_by_hand():
    """max 1.999 → scale 1, steps of 1/64, up to 127/64."""
    row = torch.tensor([1.999, -1.999, 0.5 / 64, 1.5 / 64, 0.3] + [0.0] * 27)
    assert fake_quantize(row, Numbers(format="mxint8"))[:5].tolist() == [127 / 64, -127 / 64, 0, 2 / 64, 19 / 64]


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_fixed_range_is_for_every_value(symmetric):
    numbers = Numbers(4, 0, symmetric)
    known = torch.linspace(-1, 2, 31)
    found = fake_quantize(torch.tensor([[-5.0, 0.1], [0.0, 9.0]]), numbers, range_of(known))
    scale = (4 if symmetric else 3) / 15
    assert found[0, 0] == pytest.approx(-8 * scale if symmetric else -5 * scale) and found[1, 0] == 0
    assert found[1, 1] == pytest.approx(7 * scale if symmetric else 10 * scale)
    assert fake_quantize(torch.tensor([math.inf, 1.0]), numbers, range_of(known)).isnan().tolist() == [True, False]


@pytest.mark.parametrize("numbers", [Numbers(4, 8, True), Numbers(3, 8, False), Numbers(format="mxfp6_e3m2")])
def test_weights_and_activations_have_the_same_grids(numbers):
    """But for the scales of integer weights, which are float16."""
    values = torch.randn(5, numbers.group_size, generator=torch.Generator().manual_seed(0))
    scales, zeros = fit_grid(values, numbers)
    ours = fake_quantize(values, numbers)
    codes = ours / scales.float()[:, None] + zeros[:, None]
    assert torch.allclose(codes, codes.round(), atol=2e-2) or numbers.format != "int"
    if numbers.format != "int":
        assert torch.isin(ours / scales[:, None], decode(torch.arange(64), ELEMENTS[numbers.format])).all()


@pytest.mark.parametrize("name", FP8_SCALED)
def test_scales_in_fp8_are_as_near_as_their_blocks_allow(name):
    """Half a step of a number and of a scale, and each token by itself, whatever it stands beside."""
    numbers, element = Numbers(format=name, group_size=16), ELEMENTS[name]
    values = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 40)[:, None]
    found = fake_quantize(values, numbers)
    largest = torch.nn.functional.pad(values, (0, 14)).view(40, 4, 16).abs().amax(-1).repeat_interleave(16, 1)[:, :50]
    assert ((found - values).abs() <= largest * (2.0 ** -(element.mantissa_bits + 1) + 1 / 16)).all()
    assert torch.equal(fake_quantize(values[7:8], numbers), found[7:8])
    assert fake_quantize(torch.tensor([[1.0, math.nan], [1.0, 0.5]]), numbers).isnan().any(1).tolist() == [True, False]
