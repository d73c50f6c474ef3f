"""What quantization changed in each question, small enough that a sweep reads those of all its cells: changes.parquet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base.files import atomic_path
from bitsure.config.schema import MetricSettings
from bitsure.metrics import bootstrap
from bitsure.metrics.measure import Sample
from bitsure.metrics.texts import answers
from bitsure.records.joining import IDENTITY, Join
from bitsure.records.record import by_task, is_text

METRICS = ("true_label_prob", "accuracy")
SCHEMA = pa.schema(
    [("task", pa.string()), ("question", pa.uint64()), ("cluster", pa.int32()), *((name, pa.float64()) for name in METRICS)]
)


@dataclass(frozen=True)
class Changes:
    """Of one task's n questions by how much each metric rose; in the order of `question`."""

    question: np.ndarray  # (n,) uint64, the same in every run that was asked it
    cluster: np.ndarray | None  # (n,) of int from 0; None where every question is alone
    values: dict[str, np.ndarray]  # metric → (n,) float64


def of(joined: Join, metric: MetricSettings) -> dict[str, Changes]:
    """By task, from the records of a model in full precision and quantized; none of whole texts, which have no right answer."""
    found, before = {}, by_task(joined.baseline)
    for task, after in by_task(joined.quantized).items():
        if is_text(after):
            continue
        full, quantized = (answers(side, metric.normalization) for side in (before[task], after))
        names = _numbers(after)
        order = np.argsort(names)
        clusters = Sample.of(after, metric).clusters
        values = (quantized.true_label_prob - full.true_label_prob, quantized.correct - full.correct)
        found[task] = Changes(
            names[order],
            None if clusters is None else _renumbered(clusters[order]),
            {name: value[order] for name, value in zip(METRICS, values, strict=True)},
        )
    return found


def write(path: Path, changes: dict[str, Changes]) -> None:
    """A row a question and a row group a task, so that one task can be read alone; the file whole or not at all."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as file:
        for task, one in changes.items():
            n = len(one.question)
            cluster = pa.nulls(n, pa.int32()) if one.cluster is None else pa.array(one.cluster, pa.int32())
            columns = [pa.repeat(pa.scalar(task), n), one.question, cluster, *(one.values[name] for name in METRICS)]
            file.write_table(pa.table(columns, SCHEMA), row_group_size=max(n, 1))


def read(path: Path, task: str) -> Changes:
    """One task's. Raises OSError or ValueError (pyarrow's own) for a file that is missing or cut short."""
    table = pq.read_table(path, filters=[("task", "=", task)], partitioning=None)
    cluster = None if table["cluster"].null_count else table["cluster"].to_numpy().astype(np.int64)
    return Changes(table["question"].to_numpy(), cluster, {name: table[name].to_numpy() for name in METRICS})


def resampled_means(runs: list[Changes], metric: MetricSettings) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of runs that were asked the same questions, by metric: (runs,) means, and (resamples, runs) of them, resampled alike."""
    first = runs[0]
    weights = bootstrap.resample_weights(len(first.question), metric.resamples, metric.seed, first.cluster)
    counts = weights.sum(0)[:, None]
    means, replicates = {}, {}
    for name in METRICS:
        together = np.stack([run.values[name] for run in runs], axis=1)
        means[name], replicates[name] = together.mean(0), (weights.T @ together) / counts
    return means, replicates


def in_common(one: Changes, other: Changes) -> tuple[Changes, Changes]:
    """The questions that both runs were asked; there may be none."""
    if np.array_equal(one.question, other.question):
        return one, other
    _, left, right = np.intersect1d(one.question, other.question, assume_unique=True, return_indices=True)
    return _only(one, left), _only(other, right)


def _only(changes: Changes, rows: np.ndarray) -> Changes:
    cluster = None if changes.cluster is None else _renumbered(changes.cluster[rows])
    return Changes(changes.question[rows], cluster, {name: value[rows] for name, value in changes.values.items()})


def _numbers(records: pa.Table) -> np.ndarray:
    """(n,) uint64, 64 bits of a hash of each question's identity; equal ones are told apart by their order of doc_id."""
    names = list(zip(*(records[name].to_pylist() for name in IDENTITY), strict=True))
    seen: Counter = Counter()
    numbers = np.empty(len(names), dtype=np.uint64)
    for i in np.argsort(records["doc_id"].to_numpy(), kind="stable").tolist():
        text = "\x00".join((*names[i], str(seen[names[i]])))
        seen[names[i]] += 1
        numbers[i] = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
    return numbers


def _renumbered(clusters: np.ndarray) -> np.ndarray:
    """The same clusters, numbered from 0 as they first come, so that the same questions are resampled alike in every run."""
    _, first, codes = np.unique(clusters, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]
