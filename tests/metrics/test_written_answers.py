"""The numbers of written answers, against their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score

from bitsure.base.errors import UserError
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


DRAWN = [[RNG.choice(["a", "b", str(i), str(i)]) for _ in range(4)] for i in range(60)]
TRUTH = RNG.random(60)
ALL = answer_units(written([str(i) for i in range(60)], CORRECT.tolist(), LOGPROBS, drawn=DRAWN, p_true=TRUTH.tolist()))


def test_every_certainty_is_kept_and_ranked_and_probabilities_are_calibrated():
    every = {name: number.value for name, number in measure(ALL, SETTINGS)["free"].items()}
    share = np.array([texts.count(str(i)) / 4 for i, texts in enumerate(DRAWN)])
    groups = [np.unique(texts, return_counts=True)[1] / 4 for texts in DRAWN]
    scores = {
        "token_probability": CONFIDENCE,
        "sequence_probability": [np.exp(sum(of_tokens)) for of_tokens in LOGPROBS],
        "self_consistency": (4 * share + 0.5) / 5,
        "p_true": TRUTH,
        "token_entropy": [0.25 * (len(of_tokens) + 1) for of_tokens in LOGPROBS],
        "semantic_entropy": [entropy(shares) for shares in groups],
    }
    assert ALL["self_consistency"].to_pylist() == share.tolist() and ALL["answers_drawn"].to_pylist() == [4] * 60
    for name, values in scores.items():
        assert every[name] == pytest.approx(np.mean(values)), name
        surer = -np.array(values) if name.endswith("entropy") else values
        assert every[f"{name}/auroc"] == pytest.approx(roc_auc_score(CORRECT, surer)), name
        assert (f"{name}/expected_calibration_error" in every) == (not name.endswith("entropy"))


@pytest.mark.parametrize("name", ["sequence_probability", "self_consistency", "p_true"])
def test_one_setting_chooses_the_confidence_that_carries_everything(name):
    chosen = replace(SETTINGS, answer_confidence=name)
    every = {key: number.value for key, number in measure(ALL, chosen)["free"].items()}
    assert every["confidence"] == pytest.approx(every[name]) and every["auroc"] == pytest.approx(every[f"{name}/auroc"])
    error = "debiased_squared_calibration_error"
    assert every[error] == pytest.approx(every[f"{name}/{error}"]) and np.isfinite(every["nll"])


def test_long_answers_are_ranked_although_their_probabilities_are_all_near_zero():
    records = answer_units(written(["a", "b"], [True, False], [[-200.0], [-300.0]]))
    assert measure(records, replace(SETTINGS, answer_confidence="sequence_probability"))["free"]["auroc"].value == 1.0


def test_answers_in_which_the_harness_finds_nothing_agree_with_none():
    drawn = [["[invalid]", "[invalid]", "4", "4"], ["4", "4", "4", "[invalid]"]]
    table = written(["[invalid]", "4"], [False, True], [[-0.1], [-0.2]], drawn=drawn)
    assert table["self_consistency"].to_pylist()[:2] == [0.0, 0.75]
    assert table["semantic_entropy"].to_pylist()[:2] == pytest.approx([entropy([0.25, 0.25, 0.5]), entropy([0.75, 0.25])])


def test_a_confidence_that_was_not_asked_for_is_refused():
    message = "answer_confidence=p_true: the answers of task free do not have it, but token_probability, sequence_probability"
    with pytest.raises(UserError, match=message):
        measure(RECORDS, replace(SETTINGS, answer_confidence="p_true"))


def test_losses_are_those_of_the_event_that_the_answer_is_right(values):
    of_outcome = np.where(CORRECT, CONFIDENCE, 1 - CONFIDENCE)
    assert values["true_label_prob"] == pytest.approx(of_outcome.mean())
    assert values["nll"] == pytest.approx(-np.log(of_outcome).mean())
    assert values["brier_score"] == pytest.approx(2 * ((1 - of_outcome) ** 2).mean())


def test_every_number_is_documented_and_none_is_of_choices(values):
    assert set(values) <= set(METRICS) and not {"entropy", "margin", "conformal_set_size"} & set(values)


def test_a_certain_wrong_answer_has_a_finite_loss_and_an_unsure_one_still_claims_its_answer():
    answers = answer_set(answer_units(written(["a", "b"], [False, True], [[0.0, -0.0], [-3.0]])), SETTINGS)
    assert np.isfinite(answers.nll).all() and answers.nll[0] > 30
    assert answers.correct.tolist() == [0.0, 1.0] and answers.confidence.tolist() == pytest.approx([1.0, np.exp(-3.0)])
    assert answers.at_temperature(np.array([0.5, 0.5])).correct.tolist() == [0.0, 1.0]
