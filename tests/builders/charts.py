"""What charts draw, read from their specifications."""

from __future__ import annotations


def drawn_intervals(panel):
    """The intervals that a panel's layers draw: lower and upper ends."""
    rules = [layer for layer in panel["layer"] if layer["mark"]["type"] == "rule" and "y2" in layer["encoding"]]
    return [(row["low"], row["high"]) for rule in rules for row in rule["data"]["values"]]
