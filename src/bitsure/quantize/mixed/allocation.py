"""Choosing the bits of each layer so that the sum of losses is least within a budget: a knapsack with one choice a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

UNITS = 20_000  # parts of the budget: storage is rounded up to whole ones
EXACT = 200_000  # the same where they are so few that the storage of every choice is a whole number of them


def choose_bits(
    storage: Mapping[str, Mapping[int, int]], losses: Mapping[str, Mapping[int, float]], budget: float
) -> dict[str, int]:
    """Return the bits of each layer with the least sum of losses; exactly, unless storage has to be rounded to UNITS.

    Args:
        storage: Layer → bits of a weight → bits that the layer takes, scales and zero points counted, a whole number.
        losses: Layer → bits of a weight → what is lost, at least 0.
        budget: The bits that all layers may take together, at least what the smallest choices take.

    Returns:
        Layer → bits of a weight.

    Reference: dynamic programming for the multiple-choice knapsack problem; Kellerer, Pferschy & Pisinger 2004, section 11.5.
    """
    smallest = {name: min(sizes.values()) for name, sizes in storage.items()}
    spare = max(0, budget - sum(smallest.values()))
    unit, units = _units(spare, [size - smallest[name] for name, sizes in storage.items() for size in sizes.values()])
    least = np.zeros(units + 1)  # the least loss of the layers so far with so many units
    choices: list[NDArray[np.int8]] = []
    for name, sizes in storage.items():
        tried = np.full((len(sizes), units + 1), np.inf)
        for row, (bits, size) in enumerate(sizes.items()):
            if (taken := math.ceil((size - smallest[name]) / unit)) <= units:
                tried[row, taken:] = least[: units + 1 - taken] + losses[name][bits]
        choices.append(tried.argmin(0).astype(np.int8))
        least = tried.min(0)
    chosen, left = {}, units
    for (name, sizes), rows in zip(reversed(list(storage.items())), reversed(choices), strict=True):
        bits = list(sizes)[rows[left]]
        chosen[name] = bits
        left -= math.ceil((sizes[bits] - smallest[name]) / unit)
    return {name: chosen[name] for name in storage}


def _units(spare: float, differences: list[int]) -> tuple[float, int]:
    """Return a unit of storage and how many the spare part of the budget has; exact ones where they are not too many."""
    common = math.gcd(*differences)
    if common and spare / common <= EXACT:
        return common, int(spare / common)
    return (spare / UNITS, UNITS) if spare else (1, 0)
