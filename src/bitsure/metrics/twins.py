"""Twins: the same questions in other words. How often does a model's answer change with the words?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from bitsure.config.derived_tasks import is_repetition, original_task
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.metric_names import TWIN_ACCURACY_CHANGE, TWIN_FLIP_RATE
from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.metrics.statistic import SumStatistic, mean, proportion


@dataclass(frozen=True)
class TwinRows:
    """The records of a task and of its twin, the same documents row by row."""

    original: pa.Table
    twin: pa.Table


@dataclass(frozen=True)
class TwinAnswers:
    """One model's answers to n questions, and to the same in other words."""

    original: QuestionSet
    twin: QuestionSet

    def __len__(self) -> int:
        return len(self.original)

    @cached_property
    def flipped(self) -> FloatArray:
        """1.0 where another choice is predicted when the words change, shape (n,)."""
        return np.asarray(self.original.prediction != self.twin.prediction, dtype=float)


def twin_rows(tasks: Mapping[str, pa.Table]) -> dict[str, TwinRows]:
    """Return the rows of each twin whose original is among the tasks.

    Questions whose prompt is the same in both are left out, since nothing was changed in them.

    Args:
        tasks: Task → its records.
    """
    return {task: rows for task in tasks if is_repetition(task, tasks) and len((rows := _paired(task, tasks)).twin)}


def _paired(task: str, tasks: Mapping[str, pa.Table]) -> TwinRows:
    original, twin = tasks[original_task(task)], tasks[task]
    places = {document: (row, prompt) for row, (document, prompt) in enumerate(_documents(original))}
    pairs = [
        (places[document][0], row)
        for row, (document, prompt) in enumerate(_documents(twin))
        if document in places and places[document][1] != prompt
    ]
    return TwinRows(original.take([first for first, _ in pairs]), twin.take([second for _, second in pairs]))


def _documents(records: pa.Table) -> list[tuple[tuple[int, str], str]]:
    """Return what identifies each row's document, with its prompt's hash."""
    columns = (records[name].to_pylist() for name in ("doc_id", "doc_hash", "prompt_hash"))
    return [((number, document), prompt) for number, document, prompt in zip(*columns, strict=True)]


def twin_answers(rows: TwinRows, normalization: str) -> TwinAnswers:
    """Return a model's answers; `normalization` is that of `question_set`."""
    return TwinAnswers(question_set(rows.original, normalization), question_set(rows.twin, normalization))


def twin_metrics() -> dict[str, SumStatistic[TwinAnswers]]:
    """Return the metrics of one model's answers to questions and to their twins."""
    return {
        TWIN_FLIP_RATE: proportion(lambda answers: answers.flipped),
        TWIN_ACCURACY_CHANGE: mean(lambda answers: answers.twin.correct - answers.original.correct, least=-1.0, most=1.0),
    }
