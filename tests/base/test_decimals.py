"""Numbers and changes as text."""

import pytest

from bitsure.base.decimals import decimal, with_ends


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.012, "+.3f", "+0.012"),
        (-0.012, "+.3f", "-0.012"),
        (0.0, "+.4f", "0.0000"),
        (-0.0, "+.4f", "0.0000"),
        (0.0004, "+.3f", "0.000"),
        (-0.0004, "+.3f", "0.000"),
        (-0.0004, "+.0%", "0%"),
        (-0.0004, "+.3g", "-0.0004"),
        (-0.0, ".0e", "0e+00"),
        (100.0, "+.0f", "+100"),
        (None, "+.3f", "–"),
    ],
)
def test_only_what_differs_from_zero_as_shown_has_a_sign(value, form, text):
    assert decimal(value, form) == text


def test_an_end_of_an_interval_that_rounds_to_zero_says_on_which_side_it_lies():
    assert with_ends(0.0001, -0.0004, 0.0012, "+.3f") == "0.000 [-0.000, +0.001]"
    assert with_ends(-0.004, -0.009, -0.0004, "+.3f") == "-0.004 [-0.009, -0.000]"
    assert with_ends(0.0, 0.0, -0.0, "+.3f") == "0.000 [0.000, 0.000]"
