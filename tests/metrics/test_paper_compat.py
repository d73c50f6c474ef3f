"""The study's notebook on the same input: its own functions made the expected values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bitsure.comparison import compare
from bitsure.metrics import paper_compat
from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.paper_intervals import NotebookAnswers, paper_estimates, paper_metrics
from bitsure.records.record import to_table
from tests.builders.answers import paired_runs
from tests.builders.marks import SHARED, needs_shared
from tests.builders.records import record
from tests.builders.settings import METRIC


def cases():
    return json.loads((SHARED / "vectors" / "paper_compat.json").read_text())


def rows(logprobs, gold):
    return [record(z, gold=g, doc_id=i) for i, (z, g) in enumerate(zip(logprobs, gold, strict=True))]


def numbers_of(records):
    return paper_compat.paper_numbers(*paper_compat.probabilities(to_table(records)))


@needs_shared
def test_every_number_is_the_notebooks():
    """To the last bit, but for the order in which 100 bins are added up."""
    for case in cases():
        for side in ("full", "quantized"):
            found = numbers_of(rows(case[f"choice_logprobs_{side}"], case["gold"]))
            assert found == pytest.approx(case["expected"][side], rel=4e-16, abs=0)


@needs_shared
def test_its_t_test_is_that_of_full_minus_quantized():
    from dataclasses import replace

    for case in cases():
        full, quant = (rows(case[f"choice_logprobs_{side}"], case["gold"]) for side in ("full", "quantized"))
        result = compare(full, quant, replace(METRIC, paper_compat=True, resamples=100))["t"]
        found = result["paper_compat/conf_true"]
        expected = (case["expected"]["ttest_t"], case["expected"]["ttest_p"])
        assert (found.statistic, found.p_value) == pytest.approx(expected, rel=1e-9)
        assert result["true_label_prob"].statistic == pytest.approx(-expected[0], rel=1e-9)


def test_its_calibration_error_is_large_on_calibrated_data():
    """Two choices: confidence is held against the label and not against being right."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 20_000)
    gold = (rng.random(20_000) < p).astype(int)
    assert paper_compat.paper_numbers(np.stack([1 - p, p], axis=1), gold)["ace"] == pytest.approx(0.25, abs=0.01)


def test_entropy_does_not_exist_where_a_probability_is_zero():
    assert np.isnan(paper_compat.paper_numbers(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]))["entropy"])


@pytest.mark.parametrize("choices", [2, 3, 5])
def test_what_is_resampled_is_what_the_notebook_computes(choices):
    rng = np.random.default_rng(choices)
    for n in (16, 400):
        p = rng.dirichlet(np.full(choices, 0.3), n)
        p[0], p[1] = np.eye(choices)[0] * (1 - 1e-12) + 1e-12 / choices, p[2]  # a sure one, and two alike
        gold = rng.integers(0, choices, n)
        answers = NotebookAnswers(p, gold)
        found = {name: one.value(answers) for name, one in paper_metrics(choices).items()}
        assert found == pytest.approx(paper_compat.paper_numbers(p, gold), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("choices", [2, 4])
def test_its_intervals_are_of_the_resampled_notebook(choices):
    rng, n = np.random.default_rng(0), 600
    z = rng.normal(-20, 2, (n, choices))
    gold = np.array([rng.choice(choices, p=np.exp(row) / np.exp(row).sum()) for row in z])
    found = to_table(rows(z.tolist(), gold.tolist()))
    weights = resample_weights(n, 300, 0)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    drawn = [
        paper_compat.paper_numbers(p[index], gold[index])
        for index in (np.repeat(np.arange(n), w.astype(int)) for w in weights.T)
    ]
    for name, one in paper_estimates(found, weights, None).items():
        again = np.array([numbers[name] for numbers in drawn])
        assert one.value == numbers_of(found)[name] and one.replicates is not None
        if name == "ace" and choices > 2:  # its ranges are held as they are, and the notebook's move
            assert one.standard_error == pytest.approx(again.std(), rel=0.25)
        else:
            assert one.replicates == pytest.approx(again, rel=1e-9)
        if name != "mce":  # a largest of several is no smooth function
            influence = paper_estimates(found, None, None)[name]
            assert influence.standard_error == pytest.approx(one.standard_error, rel=0.35), name


def test_all_of_its_numbers_have_intervals():
    from dataclasses import replace

    full, quant, _ = paired_runs(120)
    found = compare(full, quant, replace(METRIC, paper_compat=True))["t"]
    for name in ("conf", "conf_true", "c_pos", "c_neg", "entropy", "ace", "mce"):
        one = found[f"paper_compat/{name}"]
        assert one.ci_low <= one.ci_high and one.resampled == "questions"
        assert one.value == one.quantized - one.baseline


def test_questions_with_another_number_of_choices_are_left_out():
    some = rows([[-1, -2], [-2, -1], [-1, -2, -3]], [0, 0, 2])
    assert numbers_of(some) == numbers_of(some[:2])
