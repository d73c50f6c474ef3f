"""The study's notebook on the same input: its own functions made the expected values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bitsure.compare import compare
from bitsure.metrics import paper_compat
from tests.conftest import SHARED, needs_shared, record
from tests.metrics.test_metrics import METRIC


def cases():
    return json.loads((SHARED / "vectors" / "paper_compat.json").read_text())


def rows(logprobs, gold):
    return [record(z, gold=g, doc_id=i) for i, (z, g) in enumerate(zip(logprobs, gold, strict=True))]


@needs_shared
def test_every_number_is_the_notebooks():
    """To the last bit, but for the order in which 100 bins are added up."""
    for case in cases():
        for side in ("full", "quantized"):
            found = paper_compat.measure(rows(case[f"choice_logprobs_{side}"], case["gold"]))
            assert found == pytest.approx(case["expected"][side], rel=4e-16, abs=0)


@needs_shared
def test_its_t_test_is_that_of_full_minus_quantized():
    from dataclasses import replace

    for case in cases():
        full, quant = (rows(case[f"choice_logprobs_{side}"], case["gold"]) for side in ("full", "quantized"))
        result = compare(full, quant, replace(METRIC, paper_compat=True, resamples=100))["t"]
        found = result["paper_compat/conf_true"]
        expected = (case["expected"]["ttest_t"], case["expected"]["ttest_p"])
        assert (found["statistic"], found["p_value"]) == pytest.approx(expected, rel=1e-9)
        assert result["true_label_prob"]["statistic"] == pytest.approx(-expected[0], rel=1e-9)


def test_its_calibration_error_is_large_on_calibrated_data():
    """Two choices: confidence is held against the label and not against being right."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 20_000)
    gold = (rng.random(20_000) < p).astype(int)
    assert paper_compat.numbers(np.stack([1 - p, p], axis=1), gold)["ace"] == pytest.approx(0.25, abs=0.01)


def test_entropy_does_not_exist_where_a_probability_is_zero():
    assert np.isnan(paper_compat.numbers(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]))["entropy"])


def test_questions_with_another_number_of_choices_are_left_out():
    some = rows([[-1, -2], [-2, -1], [-1, -2, -3]], [0, 0, 2])
    assert paper_compat.measure(some) == paper_compat.measure(some[:2])
