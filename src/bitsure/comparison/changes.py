"""What quantization changed in each question, small enough that a sweep reads those of all its cells: changes.parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base.decoded_size import check_decoded_size
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.config.metric import MetricSettings
from bitsure.metrics import bootstrap
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.resampling import Resampling
from bitsure.metrics.text_metrics import answers
from bitsure.records.answer_units import is_open
from bitsure.records.joining import IDENTITY, Join
from bitsure.records.record import by_task, is_text

CHANGE_METRICS = ("true_label_prob", "accuracy")
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("question", pa.uint64()),
        ("cluster", pa.int32()),
        *((name, pa.float64()) for name in CHANGE_METRICS),
    ]
)

QuestionIds: TypeAlias = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class AnswerChanges:
    """How much each metric rose in each of one task's n questions, in the order of `question`.

    Attributes:
        question: The question's number, the same in every run that was asked it, shape (n,).
        cluster: Its cluster, shape (n,), from 0; None where every question is alone.
        values: Metric → its change, quantized − full precision, shape (n,).
    """

    question: QuestionIds
    cluster: IntArray | None
    values: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.question)

    @property
    def units(self) -> int:
        """The number of clusters, or of questions where every one is alone."""
        return len(self) if self.cluster is None else len(np.unique(self.cluster))


def answer_changes(joined: Join, settings: MetricSettings) -> dict[str, AnswerChanges]:
    """Return the changes of each task; whole texts and open questions have none, since they have no right answer.

    Args:
        joined: The records of a model in full precision and quantized.
        settings: The normalization of the choices' log-probabilities.
    """
    changes, before = {}, by_task(joined.baseline)
    for task, after in by_task(joined.quantized).items():
        if is_text(after) or is_open(after):
            continue
        full, quantized = (_values(side, settings) for side in (before[task], after))
        changes[task] = _in_order(after, settings, [late - early for late, early in zip(quantized, full, strict=True)])
    return changes


def before_changes(joined: Join, settings: MetricSettings) -> dict[str, AnswerChanges]:
    """Return the full-precision values that `answer_changes` are the changes of, in the same order."""
    after, before = by_task(joined.quantized), by_task(joined.baseline)
    return {
        task: _in_order(after[task], settings, _values(before[task], settings)) for task in answer_changes(joined, settings)
    }


def _values(records: pa.Table, settings: MetricSettings) -> list[FloatArray]:
    """Return the values of CHANGE_METRICS of one task's questions, each of shape (n,)."""
    questions = answers(records, settings)
    return [questions.true_label_prob, questions.correct]


def _in_order(records: pa.Table, settings: MetricSettings, values: Sequence[FloatArray]) -> AnswerChanges:
    """Return values of one task's questions in the order of the questions' numbers."""
    numbers = _question_numbers(records)
    order = np.argsort(numbers)
    clusters = Resampling.of_records(records, settings).clusters
    return AnswerChanges(
        numbers[order],
        None if clusters is None else renumbered(clusters[order]),
        {name: value[order] for name, value in zip(CHANGE_METRICS, values, strict=True)},
    )


def write_changes(path: Path, changes: Mapping[str, AnswerChanges]) -> None:
    """Write changes.parquet, whole or not at all: a row a question, and a row group a task, so that one can be read alone."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as file:
        for task, change in changes.items():
            n = len(change)
            cluster = pa.nulls(n, pa.int32()) if change.cluster is None else pa.array(change.cluster, pa.int32())
            columns = [pa.repeat(pa.scalar(task), n), change.question, cluster]
            columns += [change.values[name] for name in CHANGE_METRICS]
            file.write_table(pa.table(columns, SCHEMA), row_group_size=max(n, 1))


def read_changes(path: Path, task: str) -> AnswerChanges:
    """Read one task's changes.

    Raises:
        UserError: If the file is missing, cannot be read, or holds no changes.
    """
    try:
        check_decoded_size(path)
        table = pq.read_table(path, filters=[("task", "=", task)], partitioning=None).cast(SCHEMA)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as changes ({error}).") from error
    question, *values = (table[name].to_numpy() for name in ("question", *CHANGE_METRICS))
    if table["question"].null_count or (question[1:] <= question[:-1]).any() or not np.isfinite(values).all():
        raise UserError(f"{path} cannot be read as changes: a question has no number, or several.")
    cluster = None if table["cluster"].null_count else renumbered(table["cluster"].to_numpy().astype(np.int64))
    return AnswerChanges(question, cluster, dict(zip(CHANGE_METRICS, values, strict=True)))


def resampled_means(
    runs: Sequence[AnswerChanges], settings: MetricSettings
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return the mean changes of runs that were asked the same questions, and the same means resampled alike.

    Args:
        runs: The runs' changes on one task.
        settings: The number of resamples and the seed.

    Returns:
        Metric → means, shape (runs,); and metric → replicates, shape (resamples, runs).
    """
    first = runs[0]
    weights = bootstrap.resample_weights(len(first), settings.resamples, settings.seed, first.cluster)
    counts = weights.sum(0)[:, None]
    means, replicates = {}, {}
    for name in CHANGE_METRICS:
        together = np.stack([run.values[name] for run in runs], axis=1)
        means[name], replicates[name] = together.mean(0), (weights.T @ together) / counts
    return means, replicates


def in_common(first: AnswerChanges, second: AnswerChanges) -> tuple[AnswerChanges, AnswerChanges]:
    """Return the changes of the questions that both runs were asked; there may be none."""
    if np.array_equal(first.question, second.question):
        return first, second
    _, left, right = np.intersect1d(first.question, second.question, assume_unique=True, return_indices=True)
    return _take(first, left), _take(second, right)


def _take(changes: AnswerChanges, rows: IntArray) -> AnswerChanges:
    cluster = None if changes.cluster is None else renumbered(changes.cluster[rows])
    return AnswerChanges(changes.question[rows], cluster, {name: value[rows] for name, value in changes.values.items()})


def _question_numbers(records: pa.Table) -> QuestionIds:
    """Return 64 bits of a hash of each question's identity, shape (n,); doc_id tells equal ones apart by its order."""
    names = list(zip(*(records[name].to_pylist() for name in IDENTITY), strict=True))
    seen: Counter[tuple[str, ...]] = Counter()
    numbers = np.empty(len(names), dtype=np.uint64)
    for i in np.argsort(records["doc_id"].to_numpy(), kind="stable").tolist():
        text = "\x00".join((*names[i], str(seen[names[i]])))
        seen[names[i]] += 1
        numbers[i] = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
    return numbers


def renumbered(clusters: IntArray) -> IntArray:
    """Return the same clusters, numbered from 0 as they first come, so that every run resamples the same questions alike."""
    _, first, codes = np.unique(clusters, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]
