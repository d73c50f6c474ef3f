"""The numbers of written answers, against their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bitsure.metrics import measure
from bitsure.metrics.metric_registry import METRICS
from bitsure.metrics.written_answers import answer_set
from bitsure.records.answer_units import answer_units
from tests.builders.settings import METRIC
from tests.builders.written import written

SETTINGS = replace(METRIC, resamples=100)
RNG = np.random.default_rng(0)
LOGPROBS = [(-RNG.exponential(0.4, RNG.integers(1, 9))).tolist() for _ in range(60)]
CONFIDENCE = np.exp([np.mean(of_tokens) for of_tokens in LOGPROBS])
CORRECT = RNG.random(60) < CONFIDENCE
RECORDS = answer_units(written([str(i) for i in range(60)], CORRECT.tolist(), LOGPROBS))


@pytest.fixture(scope="module")
def values():
    return {name: number.value for name, number in measure(RECORDS, SETTINGS)["free"].items()}


def test_confidence_is_the_geometric_mean_of_the_tokens_probabilities(values):
    assert values["confidence"] == pytest.approx(CONFIDENCE.mean())
    assert values["accuracy"] == CORRECT.mean()
    assert values["overconfidence"] == pytest.approx(CONFIDENCE.mean() - CORRECT.mean())
    assert values["auroc"] == pytest.approx(roc_auc_score(CORRECT, CONFIDENCE))
    assert values["answer_logprob"] == pytest.approx(np.mean([sum(of_tokens) for of_tokens in LOGPROBS]))
    assert values["answer_tokens"] == np.mean([len(of_tokens) for of_tokens in LOGPROBS])
    assert values["token_entropy"] == pytest.approx(np.mean([0.25 * (len(of_tokens) + 1) for of_tokens in LOGPROBS]))


def test_losses_are_those_of_the_event_that_the_answer_is_right(values):
    of_outcome = np.where(CORRECT, CONFIDENCE, 1 - CONFIDENCE)
    assert values["true_label_prob"] == pytest.approx(of_outcome.mean())
    assert values["nll"] == pytest.approx(-np.log(of_outcome).mean())
    assert values["brier_score"] == pytest.approx(2 * ((1 - of_outcome) ** 2).mean())


def test_every_number_is_documented_and_none_is_of_choices(values):
    assert set(values) <= set(METRICS) and not {"entropy", "margin", "conformal_set_size"} & set(values)


def test_a_certain_wrong_answer_has_a_finite_loss_and_an_unsure_one_still_claims_its_answer():
    answers = answer_set(answer_units(written(["a", "b"], [False, True], [[0.0, -0.0], [-3.0]])))
    assert np.isfinite(answers.nll).all() and answers.nll[0] > 30
    assert answers.correct.tolist() == [0.0, 1.0] and answers.confidence.tolist() == pytest.approx([1.0, np.exp(-3.0)])
    assert answers.at_temperature(np.array([0.5, 0.5])).correct.tolist() == [0.0, 1.0]
