"""Intervals of an attribution resample documents and clusters of questions, as all others do."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.metrics.part_attribution import attribute
from bitsure.results.attribution import FULL, QUANTIZED, MeasuredParts


def measured(units: list[int], clusters: list[str]) -> MeasuredParts:
    """Forty segments and questions that come in equal pairs."""
    random = np.random.default_rng(0)
    losses, changes = (np.repeat(random.uniform(0.1, 1, 20) / scale, 2) for scale in (1, 10))
    return MeasuredParts(
        text_name="text",
        windows=40,
        tokens=[1] * 40,
        units=units,
        divergences={QUANTIZED: losses.tolist()},
        true_label_probs={FULL: [0.5] * 40, QUANTIZED: (0.5 - changes).tolist()},
        tasks=["task"] * 40,
        clusters=clusters,
        prompts=[f"prompt{i}" for i in range(40)],
        parts=[],
        layers={},
        scorings=1.0,
        kept_layers=None,
    )


def test_what_depends_on_each_other_widens_the_intervals_of_text_and_questions():
    alone = measured(list(range(40)), [f"prompt{i}" for i in range(40)])
    pairs = measured([i // 2 for i in range(40)], [f"passage{i // 2}" for i in range(40)])
    one, two = (attribute(each, 4.0, 0.95).quantized for each in (alone, pairs))
    for name in ("kl_divergence_ci", "true_label_prob_change_ci"):
        (low, high), (lower, higher) = getattr(one, name), getattr(two, name)
        assert (higher - lower) / (high - low) == pytest.approx(2**0.5, rel=0.1)
