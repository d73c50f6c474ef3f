"""What is tracked of single questions."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.run import tracked_samples
from bitsure.run.tracked_samples import SAMPLE_COLUMNS, sample_rows
from tests.builders.answers import paired_runs
from tests.builders.records import record
from tests.builders.settings import METRIC


def shown(records, baseline, prompts=None) -> list[dict]:
    return [dict(zip(SAMPLE_COLUMNS, row, strict=True)) for row in sample_rows(records, baseline, METRIC, prompts or {})]


def answered(p: float, gold: int, doc_id: int, task="t"):
    return record(np.log([p, 1 - p]).tolist(), gold=gold, doc_id=doc_id, task=task)


def test_a_question_is_shown_with_both_models_answers():
    [row] = shown([answered(0.3, 0, 7)], [answered(0.8, 0, 7)], {("t", 7): "x" * 2000 + "the end"})
    assert row["prompt"].endswith("the end") and len(row["prompt"]) == 2 + tracked_samples.LONGEST
    choices = row["choices"].split(" | ")
    assert row["gold"] == choices[0] and (row["prediction_before"], row["prediction_after"]) == tuple(choices)
    assert (row["correct_before"], row["correct_after"], row["flipped"]) == (True, False, True)
    assert (row["probabilities_before"], row["probabilities_after"]) == ("0.800 | 0.200", "0.300 | 0.700")
    assert row["true_label_prob_change"] == pytest.approx(-0.5) and row["confidence_after"] == pytest.approx(0.7)


def test_full_precision_alone_has_its_answers_before():
    full, _, _ = paired_runs(5)
    rows = shown(full, None)
    assert len(rows) == 5 and all(row["prediction_after"] is None and row["flipped"] is None for row in rows)
    assert all(row["correct_before"] in (True, False) and row["prompt"] is None for row in rows)


def test_of_many_questions_the_flipped_ones_and_then_those_that_changed_most_are_shown(monkeypatch):
    monkeypatch.setattr(tracked_samples, "MOST_ROWS", 8)  # two tasks: four each
    full = [answered(0.9, 0, i) for i in range(10)] + [answered(0.9, 0, i, "u") for i in range(3)]
    now = {2: 0.45, 8: 0.4, 5: 0.55, 6: 0.6}  # the first two flip
    quantized = [answered(now.get(i, 0.89), 0, i) for i in range(10)] + [answered(0.9, 0, i, "u") for i in range(3)]
    assert [(row["task"], row["doc_id"]) for row in shown(quantized, full)] == [
        *(("t", i) for i in (2, 5, 6, 8)),
        *(("u", i) for i in range(3)),
    ]
