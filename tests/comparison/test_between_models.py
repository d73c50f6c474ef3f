"""Which model suffers more: golden values, and what noise alone must not show."""

from __future__ import annotations

import pytest

from bitsure.comparison.between_models import QuantizedModel, compare_models, contrast_pair
from bitsure.comparison.changes import answer_changes
from bitsure.metrics.across import heterogeneity
from bitsure.records.joining import join
from tests.builders.quantized_models import full_and_quantized
from tests.builders.settings import METRIC


def model(name: str, *settings, **more) -> QuantizedModel:
    return QuantizedModel(name, answer_changes(join(*full_and_quantized(*settings, **more)), METRIC))


def test_a_model_that_suffers_more_is_detected_and_an_equal_one_is_not():
    models = [model("light", 0.2, 0), model("same", 0.2, 1), model("heavy", 1.0, 2)]
    result = compare_models(models, METRIC)["t"]
    pairs = {(pair.first, pair.second): pair for pair in result.pairs}
    equal, unequal = pairs["light", "same"], pairs["light", "heavy"]
    assert equal.n == 400 and equal.contrast.ci_low < 0 < equal.contrast.ci_high and unequal.contrast.ci_high < -0.05
    changes_of = result.mean_changes
    assert unequal.contrast.value == pytest.approx(changes_of["heavy"].value - changes_of["light"].value)
    two = [changes_of[name] for name in ("light", "same")]
    alike = heterogeneity([change.value for change in two], [change.standard_error for change in two])
    assert result.heterogeneity.p_value < 1e-6 < 0.01 < alike.p_value


def test_a_contrast_uses_the_questions_that_both_models_were_asked():
    whole, part = model("whole", 0.5, 0, n=400), model("part", 0.5, 0, n=100, first=300)
    assert contrast_pair(whole, part, "t", METRIC).n == 100
    assert compare_models([whole, model("elsewhere", 0.5, 0, first=5000)], METRIC)["t"].pairs == []
