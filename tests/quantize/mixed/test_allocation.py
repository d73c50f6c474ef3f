"""Bits are chosen so that the sum of losses is the least that the budget allows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bitsure.quantize.mixed.allocation import choose_bits


@pytest.mark.parametrize("seed", range(5))
def test_no_other_choice_within_the_budget_loses_less(seed):
    random = np.random.default_rng(seed)
    sizes = {f"layer{i}": int(random.integers(100, 5000)) for i in range(5)}
    storage = {name: {bits: bits * n + 16 * (n // 32) for bits in (2, 3, 4, 8)} for name, n in sizes.items()}
    losses = {name: {bits: float(random.exponential()) / 4**bits for bits in (2, 3, 4, 8)} for name in sizes}
    budget = float(random.uniform(2.5, 7)) * sum(sizes.values())
    chosen = choose_bits(storage, losses, budget)

    def total(of: dict, bits: dict[str, int]) -> float:
        return sum(of[name][bits[name]] for name in of)

    every = (dict(zip(sizes, bits, strict=True)) for bits in itertools.product((2, 3, 4, 8), repeat=5))
    best = min(total(losses, bits) for bits in every if total(storage, bits) <= budget * (1 - 1e-4))
    assert total(storage, chosen) <= budget
    assert total(losses, chosen) <= best


def test_a_budget_of_the_smallest_or_the_largest_bits_is_uniform():
    storage = {"a": {2: 20, 4: 40}, "b": {2: 200, 4: 400}}
    losses = {"a": {2: 1.0, 4: 0.5}, "b": {2: 1.0, 4: 0.1}}
    assert choose_bits(storage, losses, 220.0) == {"a": 2, "b": 2}
    assert choose_bits(storage, losses, 440.0) == {"a": 4, "b": 4}
    assert choose_bits(storage, losses, 420.0) == {"a": 2, "b": 4}


def test_a_budget_of_exactly_the_only_choice_leaves_nothing_to_spend():
    assert choose_bits({"a": {4: 40}, "b": {4: 80}}, {"a": {4: 0.1}, "b": {4: 0.2}}, 120) == {"a": 4, "b": 4}
