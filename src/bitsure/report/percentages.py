"""Shares in percent, and their changes in points with intervals, as sentences have them."""

from __future__ import annotations

from bitsure.base.decimals import decimal, interval_ends
from bitsure.results import Measurement


def percent(share: float | None) -> str:
    """Return a share, such as `12.3%`; – for None."""
    return decimal(share, ".1%")


def points(change: Measurement) -> str:
    """Return a change of a share, such as `+1.2 points [-0.3, +2.7]`."""
    return with_unit(change, "points", 100, 1)


def with_unit(change: Measurement, unit: str, scale: int = 1, digits: int = 2) -> str:
    """Return a change times a scale, with its unit and its interval, if it has one."""
    value, low, high = (None if number is None else scale * number for number in (change.value, change.ci_low, change.ci_high))
    form = f"+.{digits}f"
    text = f"{decimal(value, form)} {unit}"
    return text if low is None or high is None else f"{text} {interval_ends(low, high, form)}"
