"""What charts draw, read from their specifications."""

from __future__ import annotations


def drawn_intervals(panel):
    """The intervals of a panel's lines: lower and upper ends."""
    rows = [row for lines in panel["layer"] if "layer" in lines for row in lines["data"]["values"]]
    return [(row["low"], row["high"]) for row in rows if row["low"] is not None]
