"""What is tracked of single questions: both models' answers, and the points of reliability curves."""

from __future__ import annotations

import pyarrow as pa

from bitsure.config.schema import MetricSettings
from bitsure.metrics.calibration import reliability_diagram
from bitsure.metrics.confidence import questions
from bitsure.metrics.measure import bins_of
from bitsure.metrics.texts import texts
from bitsure.records.joining import join
from bitsure.records.record import Records, by_task, has_choices, is_text, to_records, to_table

SAMPLE_COLUMNS = {
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


def reliability_points(records: Records, metric: MetricSettings) -> dict[str, list[list[float]]]:
    """By task with choices, a row for each bin that holds questions: mean confidence, accuracy, questions."""
    points = {}
    for task, found in by_task(records).items():
        if not has_choices(found):
            continue
        asked = questions(found, metric.normalization)
        bins = reliability_diagram(asked.confidence, asked.correct, bins_of(asked, metric))
        rows_ = zip(bins.confidence, bins.accuracy, bins.count, strict=True)
        points[task] = [[float(c), float(a), int(n)] for c, a, n in rows_ if n]
    return points


def sample_rows(records: Records, baseline: Records | None, normalization: str) -> list[list]:
    """A row under SAMPLE_COLUMNS for each question (whole texts have none), with both models' choice if there is a baseline."""
    if baseline is None:
        return [[*asked, *seen, *[None] * 4] for asked, seen in _seen(to_table(records), normalization)]
    joined = join(baseline, records)
    pairs = zip(_seen(joined.baseline, normalization), _seen(joined.quantized, normalization), strict=True)
    both = [[*asked, *now, *then, now[2] - then[2]] for (_, then), (asked, now) in pairs]
    return both + [[*asked, *seen, *[None] * 4] for asked, seen in _seen(joined.unmatched, normalization)]


def _seen(records: pa.Table, normalization: str) -> list[tuple[list, list]]:
    """Of each question what was asked, and the model's choice, its confidence and the right answer's probability."""
    return [
        ([one.task, one.doc_id, " | ".join(one.choices), str(one.gold)], seen)
        for found in by_task(records).values()
        if not is_text(found)
        for one, seen in zip(to_records(found), _answers(found, normalization), strict=True)
    ]


def _answers(found: pa.Table, normalization: str) -> list[list]:
    """Of a task's questions: the choice and the confidence (None where there are no choices), the right one's probability."""
    if not has_choices(found):
        return [[None, None, p] for p in texts(found).true_label_prob.tolist()]
    q, choices = questions(found, normalization), found["choices"].to_pylist()
    numbers = zip(choices, q.prediction.tolist(), q.confidence.tolist(), q.true_label_prob.tolist(), strict=True)
    return [[of[choice], confidence, p] for of, choice, confidence, p in numbers]
