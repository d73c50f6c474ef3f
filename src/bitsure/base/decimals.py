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
    return f"{decimal(value, form)} {interval_ends(low, high, form)}"


def interval_ends(low: float | None, high: float | None, form: str) -> str:
    """Return the ends of an interval by a format, such as `[-0.0031, +0.0271]`."""
    return f"[{interval_end(low, form)}, {interval_end(high, form)}]"


def interval_end(end: float | None, form: str) -> str:
    """Return an end of an interval by a format. One that rounds to zero keeps its sign: on which side of zero it lies."""
    return format(end, form) if end else decimal(end, form)
