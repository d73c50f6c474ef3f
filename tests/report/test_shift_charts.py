"""Pictures of how the right answer shifted: what is measured is drawn, over the noise control's range."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.comparison import compare
from bitsure.metrics.question_pairs import STRATA
from bitsure.report.shift_charts import confidence_shift_chart, shift_chart
from tests.builders.answers import paired_runs, two_choices
from tests.builders.charts import drawn_intervals
from tests.builders.settings import METRIC


@pytest.fixture(scope="module")
def values():
    full, quant, _ = paired_runs(400)
    return compare(full, quant, METRIC, noisy=[paired_runs(400, shift)[1] for shift in (0.01, 0.1)])["t"]


def bands(panel):
    """Return the places and the ends of a panel's noise bands."""
    return [layer["data"]["values"] for layer in panel["layer"] if layer.get("mark", {}).get("type") == "area"]


def test_the_studys_picture_has_probabilities_left_and_log_odds_right(values):
    chart = confidence_shift_chart("t", values)
    for panel, kind in zip(chart.spec["hconcat"], ("probability", "log_odds"), strict=True):
        names = [f"{kind}_shift_{k}_to_{k + 10}_percent" for k in range(50, 90, 10)]
        expected = [(values[name].ci_low, values[name].ci_high) for name in names]
        assert np.array(drawn_intervals(panel)) == pytest.approx(np.array(expected), rel=1e-5)
        [noise] = bands(panel)
        assert [row["x"] for row in noise] == pytest.approx([0.55, 0.65, 0.75, 0.85])
        assert noise[0]["low"] == pytest.approx(values[f"noise_control/{names[0]}"].ci_low, rel=1e-5)
    assert chart.svg.count("confidence 50–60%: ") == 2 and "questions" in chart.svg
    assert "In log-odds" in chart.finding and "Noise moves" in chart.finding


def test_bins_of_few_questions_are_left_out_where_others_are_filled():
    confidences = [0.65] * 40 + [0.75] + [0.95] * 40
    full, quant = ([two_choices(p - change, 0, i) for i, p in enumerate(confidences)] for change in (0, 0.05))
    assert "confidence 70–80%" not in confidence_shift_chart("t", compare(full, quant, METRIC)["t"]).svg


def test_a_bin_of_one_question_has_a_point_and_no_interval():
    full, quant = ([two_choices(p - change, 0, i) for i, p in enumerate([0.65] * 40 + [0.95])] for change in (0, 0.05))
    panel = confidence_shift_chart("t", compare(full, quant, METRIC)["t"]).spec["hconcat"][0]
    assert len(drawn_intervals(panel)) == 1 and not bands(panel)


def test_an_interval_that_excludes_its_value_is_drawn_where_it_is(values):
    first = values["harm_stratum_1"].model_copy(update={"value": 0.5, "ci_low": -0.2, "ci_high": 0.1})
    missing = values["harm_stratum_2"].model_copy(update={"value": None, "ci_low": None, "ci_high": None})
    changed = values | {"harm_stratum_1": first, "harm_stratum_2": missing}
    chart = shift_chart("t", changed)
    ends = drawn_intervals(chart.spec["hconcat"][0])
    assert ends[0] == pytest.approx((-0.2, 0.1)) and len(ends) == STRATA - 1
    assert chart.svg.count("harm in fifth") == STRATA - 1
