"""Numbers and changes as text."""

from __future__ import annotations


def decimal(value: float | None, form: str) -> str:
    """Return a number by a format, such as `.2f` or `+.4f`; – for None. What rounds to zero has no sign."""
    if value is None:
        return "–"
    text = format(value, form)
    return text if text.strip("+-0.e%") else text.lstrip("+-")


def with_ends(value: float | None, low: float | None, high: float | None, form: str) -> str:
    """Return a number and the ends of its interval by a format, such as `+0.0120 [-0.0031, +0.0271]`."""
    return f"{decimal(value, form)} [{decimal(low, form)}, {decimal(high, form)}]"
