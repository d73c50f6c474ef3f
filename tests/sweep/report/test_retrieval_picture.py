"""Heat maps of length × depth side by side for each quantizer, full precision first."""

from __future__ import annotations

from bitsure.sweep.report.retrieval_picture import retrieval_picture
from tests.builders.study_rows import study_row


def of_run(name: str, hard: float) -> list:
    named = {"quantizer": name, "quantizer_label": name, "asked": name, "task": "retrieval_pairs"}
    values = {"retrieval/accuracy_length_128_depth_0": 0.9, "retrieval/accuracy_length_512_depth_50": hard, "accuracy": 0.7}
    return [study_row(metric=metric, value=value, **named) for metric, value in values.items()]


def test_each_quantizer_has_a_panel_that_names_where_it_finds_least():
    picture = retrieval_picture(of_run("kv4", 0.6) + of_run("none", 0.8))
    assert [panel.finding for panel in picture.panels] == [
        "retrieval_pairs, none: the lowest accuracy is 0.8000, at 512 words, depth 50%.",
        "retrieval_pairs, kv4: the lowest accuracy is 0.6000, at 512 words, depth 50%.",
    ]
    assert picture.columns == 2 and {row.metric for row in picture.rows} == {
        "retrieval/accuracy_length_128_depth_0",
        "retrieval/accuracy_length_512_depth_50",
    }
    assert "<svg" in picture.panels[0].svg


def test_other_tasks_have_no_picture():
    assert retrieval_picture([study_row()]) is None
