"""Is a quantized model less robust? How much more often its answers change when questions are put in other words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from bitsure.comparison.difference_tests import with_paired_interval
from bitsure.comparison.question_differences import metric_differences
from bitsure.config.metric import MetricSettings
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.metric_names import TWIN_FLIP_RATE
from bitsure.metrics.question_pairs import AnswerPairs
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.twins import TwinAnswers, twin_answers, twin_metrics, twin_rows
from bitsure.results.measurement import Comparison


@dataclass(frozen=True)
class TwinPairs:
    """Two models' answers to the same questions and to their twins."""

    full: TwinAnswers
    quantized: TwinAnswers


@dataclass(frozen=True)
class Flips:
    """Whether each of n answers changed with the words, as what two models' shares of ones are compared of."""

    correct: FloatArray

    def __len__(self) -> int:
        return len(self.correct)


def twin_differences(before: Mapping[str, pa.Table], after: Mapping[str, pa.Table], settings: MetricSettings) -> Comparison:
    """Return how much more the words matter to the quantized model, for each twin whose original was asked too.

    All four answers to a question are paired by its document: each model's to the question and to its twin.

    Args:
        before: Task → its records of full precision.
        after: Those of the quantized model, of the same questions in the same order.
        settings: How records become numbers.
    """
    results: Comparison = {}
    full_rows, level = twin_rows(before), settings.confidence_level
    for task, rows in twin_rows(after).items():
        full, quantized = (twin_answers(side, settings.normalization) for side in (full_rows[task], rows))
        resampling = Resampling.of_records(rows.twin, settings)
        results[task], _ = metric_differences(TwinPairs(full, quantized), twin_metrics(), resampling, level)
        flips = AnswerPairs(Flips(full.flipped), Flips(quantized.flipped))
        rate = with_paired_interval(results[task][TWIN_FLIP_RATE], flips, resampling.units, level)
        results[task][TWIN_FLIP_RATE] = rate
    return results
