"""What W&B gets of single questions: both models' answers, and the points of reliability curves."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from bitsure.config.schema import MetricSettings
from bitsure.metrics.bins import reliability_diagram
from bitsure.metrics.choice_metrics import confidence_bins
from bitsure.metrics.questions import question_set
from bitsure.metrics.text_metrics import text_set
from bitsure.records.joining import join
from bitsure.records.record import Record, Records, by_task, has_choices, is_text, to_records, to_table

SAMPLE_COLUMNS: dict[str, type] = {
    "task": str,
    "doc_id": int,
    "choices": str,
    "gold": str,
    "prediction": str,
    "confidence": float,
    "true_label_prob": float,
    "baseline_prediction": str,
    "baseline_confidence": float,
    "baseline_true_label_prob": float,
    "true_label_prob_change": float,
}
Cell = str | int | float | None


@dataclass(frozen=True)
class Answer:
    """A model's answer to one question; continuations have no prediction and no confidence."""

    record: Record
    prediction: str | None
    confidence: float | None
    true_label_prob: float


def reliability_points(records: Records, metric: MetricSettings) -> dict[str, list[list[float]]]:
    """Return the points of each task's reliability curve; tasks without choices have none.

    Returns:
        Task → for each bin that holds questions: mean confidence, accuracy, number of questions.
    """
    points = {}
    for task, rows in by_task(records).items():
        if not has_choices(rows):
            continue
        answers = question_set(rows, metric.normalization)
        diagram = reliability_diagram(answers.confidence, answers.correct, confidence_bins(answers, metric))
        numbers = zip(diagram.confidence, diagram.accuracy, diagram.count, strict=True)
        points[task] = [[float(confidence), float(accuracy), int(n)] for confidence, accuracy, n in numbers if n]
    return points


def sample_rows(records: Records, baseline: Records | None, normalization: str) -> list[list[Cell]]:
    """Return a row under SAMPLE_COLUMNS for each question, with full precision's answer where there is one.

    Args:
        records: The run's records; whole texts, which have no right answer, are left out.
        baseline: The same questions in full precision.
        normalization: What choices' log-probabilities are divided by.
    """
    if baseline is None:
        return [_row(answer, None) for answer in _answers(to_table(records), normalization)]
    joined = join(baseline, records)
    full, quantized = _answers(joined.baseline, normalization), _answers(joined.quantized, normalization)
    rows = [_row(answer, before) for before, answer in zip(full, quantized, strict=True)]
    return rows + [_row(answer, None) for answer in _answers(joined.unmatched, normalization)]


def _row(answer: Answer, before: Answer | None) -> list[Cell]:
    record = answer.record
    row: list[Cell] = [record.task, record.doc_id, " | ".join(record.choices), str(record.gold)]
    row += [answer.prediction, answer.confidence, answer.true_label_prob]
    if before is None:
        return [*row, None, None, None, None]
    change = answer.true_label_prob - before.true_label_prob
    return [*row, before.prediction, before.confidence, before.true_label_prob, change]


def _answers(records: pa.Table, normalization: str) -> list[Answer]:
    return [
        answer for rows in by_task(records).values() if not is_text(rows) for answer in _answers_to_task(rows, normalization)
    ]


def _answers_to_task(rows: pa.Table, normalization: str) -> list[Answer]:
    records = to_records(rows)
    if not has_choices(rows):
        return [
            Answer(record, None, None, p) for record, p in zip(records, text_set(rows).true_label_prob.tolist(), strict=True)
        ]
    answers = question_set(rows, normalization)
    numbers = zip(answers.prediction.tolist(), answers.confidence.tolist(), answers.true_label_prob.tolist(), strict=True)
    return [
        Answer(record, record.choices[choice], confidence, p)
        for record, (choice, confidence, p) in zip(records, numbers, strict=True)
    ]
