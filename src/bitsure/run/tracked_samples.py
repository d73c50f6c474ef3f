"""Single questions as W&B gets them: a row a question, with both models' answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitsure.base.plain_text import ending
from bitsure.config.metric import MetricSettings
from bitsure.metrics.questions import question_set
from bitsure.metrics.text_metrics import answers, confident_answers, text_set
from bitsure.records.answer_units import is_written
from bitsure.records.joining import join
from bitsure.records.record import Record, Records, by_task, has_choices, is_text, to_records, to_table

SAMPLE_COLUMNS: dict[str, type] = {
    **{"task": str, "doc_id": int, "prompt": str, "choices": str, "gold": str},
    **{"prediction_before": str, "prediction_after": str, "correct_before": bool, "correct_after": bool, "flipped": bool},
    **{"true_label_prob_before": float, "true_label_prob_after": float, "true_label_prob_change": float},
    **{"confidence_before": float, "confidence_after": float, "probabilities_before": str, "probabilities_after": str},
}
MOST_ROWS = 1000  # of all tasks together
LONGEST = 1000  # characters of a prompt: its end
BETWEEN = " | "  # choices, and their probabilities
Prompts = Mapping[tuple[str, int], str]  # (task, doc_id) → prompt


@dataclass(frozen=True)
class Answers:
    """A model's answers to some questions of a task; without choices there are no predictions, only `None`.

    Attributes:
        predicted: What `_predicted` returns; a question whose value differs between two models has flipped.
        predictions: The predicted choices' texts.
        correct: Whether each is right; without choices, whether greedy decoding gives the continuation.
        true_label_prob: The probability of the right choices.
        confidence: That of the predicted choice.
        probabilities: Those of all choices, as text.
    """

    predicted: list[Any]
    predictions: list[str | None]
    correct: list[bool]
    true_label_prob: list[float]
    confidence: list[float | None]
    probabilities: list[str | None]


def sample_rows(records: Records, baseline: Records | None, metric: MetricSettings, prompts: Prompts) -> list[list[Any]]:
    """Return a row under SAMPLE_COLUMNS for each question, at most MOST_ROWS in all.

    Each task has as many rows as another. Where it has more questions, those whose prediction flipped come first, then those
    whose true-label probability changed most; in full precision, its first ones. Whole texts, which have no right answer, are
    left out.

    Args:
        records: The run's records.
        baseline: The same questions in full precision; None if the run is full precision itself.
        metric: How records become numbers.
        prompts: The prompts, as far as they are known.
    """
    if baseline is None:
        pairs = {task: (rows, None) for task, rows in by_task(to_table(records)).items()}
    else:
        joined = join(baseline, records)
        before = by_task(joined.baseline)
        pairs = {task: (before[task], rows) for task, rows in by_task(joined.quantized).items()}
    pairs = {task: pair for task, pair in pairs.items() if not is_text(pair[0])}
    most = MOST_ROWS // max(len(pairs), 1)
    return [row for before, after in pairs.values() for row in _rows(before, after, metric, prompts, most)]


def _rows(before: pa.Table, after: pa.Table | None, metric: MetricSettings, prompts: Prompts, most: int) -> list[list[Any]]:
    """Return the rows of a task; before: in full precision, after: quantized."""
    places = np.arange(min(len(before), most)) if after is None else _most_changed(before, after, metric, most)
    records = to_records(before.take(places))
    if is_written(before):
        targets = before["target"].take(places).to_pylist()
        records = [replace(record, choices=[target]) for record, target in zip(records, targets, strict=True)]
    full = _answers(before.take(places), records, metric)
    quantized = _answers(after.take(places), records, metric) if after is not None else None
    return [_row(i, record, full, quantized, prompts) for i, record in enumerate(records)]


def _most_changed(before: pa.Table, after: pa.Table, metric: MetricSettings, most: int) -> NDArray[np.int64]:
    """Return the places of the questions that are shown, in the order of the records."""
    if len(before) <= most:
        return np.arange(len(before))
    flipped = _predicted(before, metric) != _predicted(after, metric)
    was, now = (answers(rows, metric).true_label_prob for rows in (before, after))
    return np.sort(np.lexsort((-np.abs(now - was), ~flipped))[:most])


def _predicted(rows: pa.Table, metric: MetricSettings) -> NDArray[np.generic]:
    """Return each question's predicted choice, by its index, or written answer; or whether its continuation is right."""
    if is_written(rows):
        return np.array(rows["filtered"].to_pylist(), dtype=object)
    return question_set(rows, metric.normalization).prediction if has_choices(rows) else text_set(rows).correct


def _answers(rows: pa.Table, records: list[Record], metric: MetricSettings) -> Answers:
    measured, predicted = answers(rows, metric), _predicted(rows, metric).tolist()
    predictions: list[str | None] = [None] * len(records)
    confidence: list[float | None] = [None] * len(records)
    probabilities: list[str | None] = [None] * len(records)
    if is_written(rows):
        predictions, confidence = rows["answer"].to_pylist(), confident_answers(rows, metric).confidence.tolist()
    elif has_choices(rows):
        questions = question_set(rows, metric.normalization)
        ends = zip(questions.starts[:-1].tolist(), questions.starts[1:].tolist(), strict=True)
        predictions = [record.choices[k] for record, k in zip(records, predicted, strict=True)]
        confidence = questions.confidence.tolist()
        probabilities = [BETWEEN.join(f"{p:.3f}" for p in questions.p[first:last]) for first, last in ends]
    correct = (
        rows["correct"].to_pylist() if is_written(rows) else measured.correct.astype(bool).tolist()
    )  # null: open questions
    true_label_prob = measured.true_label_prob.tolist()
    return Answers(predicted, predictions, correct, true_label_prob, confidence, probabilities)


def _row(i: int, record: Record, before: Answers, after: Answers | None, prompts: Prompts) -> list[Any]:
    prompt = prompts.get((record.task, record.doc_id))
    gold = BETWEEN.join(record.choices[k] for k in record.gold)
    question = [record.task, record.doc_id, prompt and ending(prompt, LONGEST), BETWEEN.join(record.choices), gold]
    p, confidence, probabilities = before.true_label_prob[i], before.confidence[i], before.probabilities[i]
    if after is None:
        answer = [before.predictions[i], None, before.correct[i], None, None]
        return [*question, *answer, p, None, None, confidence, None, probabilities, None]
    flipped = before.predicted[i] != after.predicted[i]
    answer = [before.predictions[i], after.predictions[i], before.correct[i], after.correct[i], flipped]
    now = after.true_label_prob[i]
    return [*question, *answer, p, now, now - p, confidence, after.confidence[i], probabilities, after.probabilities[i]]
