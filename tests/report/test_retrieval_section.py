"""What a run's report says of finding something: a sentence, a table of length × depth, and heat maps of both models."""

from __future__ import annotations

import dataclasses

import pytest

from bitsure.comparison import compare
from bitsure.metrics import measure
from bitsure.report.retrieval_charts import retrieval_chart
from bitsure.report.retrieval_section import retrieval_sections
from tests.builders.settings import METRIC
from tests.metrics.test_retrieval_metrics import placed

SETTINGS = dataclasses.replace(METRIC, resamples=100)


@pytest.fixture(scope="module")
def numbers():
    full, quantized = placed(10), placed(4)
    return measure(full, SETTINGS), measure(quantized, SETTINGS), compare(full, quantized, SETTINGS)


def test_a_comparison_says_what_the_shortest_and_longest_texts_lose_and_where_most(numbers):
    _, quantized, comparison = numbers
    [section] = retrieval_sections(quantized, comparison)
    assert section.sentence.startswith(
        "t: accuracy in texts of 128 words 1.00 → 1.00, of 512 words 1.00 → 0.70; the lowest change is at 512 words, "
        "depth 50%: -0.6000. Of 4 places"
    )
    assert section.columns == ("depth", "128 words", "512 words")
    assert section.rows == [("0%", "1.00 → 1.00", "1.00 → 1.00"), ("50%", "1.00 → 1.00", "1.00 → 0.40")]


def test_a_run_alone_says_where_it_finds_least(numbers):
    [section] = retrieval_sections(numbers[1], None)
    assert "of 512 words 0.70; the lowest is at 512 words, depth 50%: 0.4000. Of 4 places" in section.sentence
    assert section.rows[1] == ("50%", "1.00", "0.40")
    assert retrieval_sections({"t": {"accuracy": numbers[0]["t"]["accuracy"]}}, None) == []


def test_the_heat_maps_have_a_field_for_each_place_and_lines_for_each_length(numbers):
    full, quantized, comparison = numbers
    [section] = retrieval_sections(quantized, comparison)
    chart = retrieval_chart(section, {"full precision": full["t"], "quantized": quantized["t"]})
    accuracy, probability = chart.spec["vconcat"]
    titles = [panel["title"]["text"] for row in (accuracy, probability) for panel in row["hconcat"]]
    assert titles[:2] == ["accuracy, full precision", "accuracy, quantized"] and len(titles) == 4
    texts = [row["text"] for row in accuracy["hconcat"][1]["data"]["values"]]
    assert texts == ["1.00", "1.00", "1.00", "0.40"]
    assert [line.label for line in chart.series][2:] == ["quantized, 128 words", "quantized, 512 words"]
    assert [row["y"] for row in chart.series[3].rows] == [1, 0.4]
