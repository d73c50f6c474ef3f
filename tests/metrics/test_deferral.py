from __future__ import annotations

import numpy as np
import pytest

from bitsure.metrics import deferral
from bitsure.metrics.bootstrap import resample_weights
from bitsure.metrics.deferral_curve import deferral_metrics
from bitsure.metrics.estimation import estimate
from bitsure.metrics.question_pairs import QuestionPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.temperature import assign_folds


def test_deferring_the_unsure_is_better_than_deferring_at_random_where_the_full_model_knows_them():
    rng = np.random.default_rng(0)
    n = 2000
    confidence = rng.uniform(0.5, 1, n)
    right = rng.random(n) < confidence
    p = np.stack([confidence, 1 - confidence], 1)
    gold = np.stack([right, ~right], 1)
    quant = QuestionSet(np.log(p).ravel(), gold.ravel(), np.arange(n + 1) * 2)
    full = QuestionSet(np.where(gold, -0.01, -5).ravel(), gold.ravel(), np.arange(n + 1) * 2)  # always right
    pairs = QuestionPairs(full, quant, assign_folds(n, None, 0))
    found = estimate(deferral_metrics(), pairs, resample_weights(n, 200, 0))
    assert pairs.deferred.mean(0) == pytest.approx(np.array(deferral.SHARES), abs=0.03)
    for k, name in enumerate(deferral.NAMES):
        gain, accuracy = found[f"deferral_gain_{name}"], found[f"deferral_accuracy_{name}"]
        assert gain.interval(0.95)[0] > 0.01
        by_hand = np.where(pairs.deferred[:, k], full.correct, quant.correct).mean()
        at_random = quant.correct.mean() + pairs.deferred[:, k].mean() * (1 - quant.correct.mean())
        assert (accuracy.value, gain.value) == pytest.approx((by_hand, by_hand - at_random))


def test_a_folds_threshold_does_not_depend_on_its_own_questions():
    confidence, fold = np.linspace(0.5, 1, 100), np.arange(100) % 5
    before = deferral.defer_least_confident(confidence, fold, [0.3])[:, 0]
    confidence[fold == 0] = 1.0
    after = deferral.defer_least_confident(confidence, fold, [0.3])[:, 0]
    assert before[fold == 0].any() and not after[fold == 0].any()
    # the thresholds of fold 1 by hand: the 30% quantile of the other four
    assert after[fold == 1].tolist() == (confidence[fold == 1] < np.quantile(confidence[fold != 1], 0.3)).tolist()


@pytest.mark.parametrize(
    ("given", "bits", "cost"), [(None, 4.16, 0.26), (None, None, 0.25), (0.5, 4.0, 0.5), (None, 32.0, 1.0)]
)
def test_what_a_quantized_answer_costs(given, bits, cost):
    assert deferral.cost_of_quantized(given, bits) == cost
