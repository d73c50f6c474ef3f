"""Small formats by the tables of OCP Microscaling Formats (MX) v1.0, by torch's own FP8, and by their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitsure.config.number_formats import ELEMENTS, MX
from bitsure.quantize.weights.small_floats import decode, encode, nearest, power_of_two, shared_exponents

# section 5.3: (smallest subnormal, smallest normal, largest), by hand; integers have even steps and no lowest code
TABLE = {
    "mxfp8_e4m3": (2**-9, 2**-6, 448),
    "mxfp8_e5m2": (2**-16, 2**-14, 57344),
    "mxfp6_e2m3": (0.125, 1, 7.5),
    "mxfp6_e3m2": (0.0625, 0.25, 28),
    "mxfp4": (0.5, 1, 6),
    "mxint8": (2**-6, 1, 1 + 63 / 64),
    "mxint4": (0.25, 1, 1.75),
}
E_MAX = {"mxfp8_e4m3": 8, "mxfp8_e5m2": 15, "mxfp6_e2m3": 2, "mxfp6_e3m2": 4, "mxfp4": 2, "mxint8": 0, "mxint4": 0}


def numbers(name: str) -> torch.Tensor:
    """All finite numbers of a format, in order."""
    every = decode(torch.arange(2 ** ELEMENTS[name].bits), ELEMENTS[name])
    return every[every.isfinite()].unique()


@pytest.mark.parametrize("name", MX)
def test_the_formats_are_those_of_the_specification(name):
    found, (subnormal, normal, largest) = numbers(name), TABLE[name]
    assert (found[found > 0][0], found[-1], found[0]) == (subnormal, largest, -largest)
    assert normal in found and ELEMENTS[name].e_max == E_MAX[name]


def test_every_number_of_fp4_by_hand():
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert decode(torch.arange(16), ELEMENTS["mxfp4"]).tolist() == positive + [-x for x in positive]


@pytest.mark.parametrize(("name", "dtype"), [("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)])
def test_fp8_is_torchs_bit_for_bit(name, dtype):
    element = ELEMENTS[name]
    theirs = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    ours = decode(torch.arange(256), element)
    finite = theirs.isfinite()
    assert torch.equal(ours[finite], theirs[finite]) and not ours[~finite].isfinite().any()
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 5, 50_000)
    values = torch.cat([values, (ours[finite][1:] + ours[finite][:-1]) / 2]).clamp(-element.largest, element.largest)
    rounded = nearest(values, element)
    assert torch.equal(rounded, values.to(dtype).float())
    assert torch.equal(encode(rounded.copysign(values), element), values.to(dtype).view(torch.uint8))


@pytest.mark.parametrize("name", ELEMENTS)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_the_nearest_number_is_the_nearest_number(name, values):
    found, values = numbers(name), torch.tensor(values)
    rounded = nearest(values, ELEMENTS[name])
    inside = values.clamp(found[0], found[-1]).double()
    best = (found.double()[None] - inside[:, None]).abs().amin(1)
    assert torch.isin(rounded, found).all()
    assert torch.equal((rounded.double() - inside).abs(), best)
    assert torch.equal(decode(encode(rounded, ELEMENTS[name]), ELEMENTS[name]), rounded)
    assert torch.equal(nearest(rounded, ELEMENTS[name]), rounded)


@pytest.mark.parametrize("name", ELEMENTS)
def test_halves_go_to_the_even_code(name):
    element, found = ELEMENTS[name], numbers(name)
    found = found[found >= 0]
    rounded = nearest((found[1:] + found[:-1]) / 2, element)
    assert (encode(rounded, element) % 2 == 0).all()


@pytest.mark.parametrize("name", ELEMENTS)
def test_nan_stays_nan(name):
    assert nearest(torch.tensor([float("nan"), 1.0]), ELEMENTS[name]).isnan().tolist() == [True, False]


def test_powers_of_two_are_exact_down_to_subnormals():
    exponents = torch.arange(-127, 128)
    assert torch.equal(power_of_two(exponents).double(), 2.0 ** exponents.double())


@pytest.mark.parametrize("name", MX)
def test_the_shared_exponent_by_hand(name):
    largest = torch.tensor([1.0, 1.99, 2.0, 0.75, 0.0, 1e-44, 3.4e38])
    floors = torch.tensor([0, 0, 1, -1, -127, -127, 127])
    expected = (floors - E_MAX[name]).clamp(min=-127)
    assert torch.equal(shared_exponents(largest, ELEMENTS[name]), expected.int())
