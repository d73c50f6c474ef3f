"""Every metric and comparison of two runs, from records on disk: `make bench-metrics` writes benchmarks/metrics.md."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from bitsure.base.files import write_text
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.records.record import SCHEMA

HERE = Path(__file__).parent
CHOICES = 4


def table(n: int, seed: int) -> pa.Table:
    """n questions of one task; the second run is the first one with noise."""
    rng = np.random.default_rng(0)
    scores = rng.normal(-20, 3, (n, CHOICES))
    gold = np.array([np.argmax(scores + rng.gumbel(0, 2, scores.shape), axis=1)]).reshape(-1)
    if seed:
        scores = scores + np.random.default_rng(seed).normal(0, 0.3, scores.shape)
    return records_table(np.minimum(scores, 0.0), gold)


def records_table(scores: FloatArray, gold: IntArray, clusters: IntArray | None = None) -> pa.Table:
    """Return the records of one task.

    Args:
        scores: The choices' log-probabilities, shape (n, CHOICES).
        gold: The index of the right choice, shape (n,).
        clusters: Each question's cluster, shape (n,); None if every question is alone.
    """
    n = len(scores)
    names = pa.array([f"{i:016x}" for i in range(n)])
    starts = pa.array(np.arange(n + 1, dtype=np.int32) * CHOICES)
    lists = lambda values, kind: pa.ListArray.from_arrays(starts, pa.array(values, kind))  # noqa: E731
    known = pa.table(
        {
            "task": pa.array(["t"] * n),
            "doc_id": np.arange(n),
            "doc_hash": names,
            "prompt_hash": names,
            "target_hash": names,
            "choices": lists([f"choice {k}" for k in range(CHOICES)] * n, pa.string()),
            "gold": pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), pa.array(gold, pa.int32())),
            "choice_logprobs": lists(scores.ravel(), pa.float64()),
            "choice_tokens": lists(np.full(n * CHOICES, 5), pa.int32()),
            "choice_greedy": lists(np.zeros(n * CHOICES, dtype=bool), pa.bool_()),
            "cluster": pa.nulls(n, pa.string()) if clusters is None else pa.array([f"c{code}" for code in clusters]),
        }
    )
    columns = [known[field.name] if field.name in known.column_names else pa.nulls(n, field.type) for field in SCHEMA]
    return pa.table(columns, SCHEMA)


def run(folder: Path) -> tuple[float, float]:
    """Seconds from the files to every number, and the process's largest memory in bytes."""
    from bitsure import metric_settings
    from bitsure.comparison import compare
    from bitsure.metrics import measure
    from bitsure.records.parquet import read_records

    metric = metric_settings()
    started = time.perf_counter()
    full, quant = (read_records(folder / f"{name}.parquet")[0] for name in ("full", "quantized"))
    measure(full, metric)
    measure(quant, metric)
    compare(full, quant, metric)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", default="10000,1000000")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # a process of its own, so that its memory is its own
    arguments = parser.parse_args()
    if arguments.one:
        print(*run(arguments.one))
        return
    rows = ["| questions | intervals | seconds | largest memory, GB |", "| --- | --- | --- | --- |"]
    for n in map(int, arguments.questions.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            from bitsure.metrics.bootstrap import MOST_RESAMPLED
            from bitsure.records.parquet import write_records

            for seed, name in enumerate(("full", "quantized")):
                write_records(Path(folder, f"{name}.parquet"), table(n, seed), {})
            command = [sys.executable, "-m", "benchmarks.metrics", "--one", folder]
            done = subprocess.run(command, capture_output=True, check=True, env=os.environ, encoding="utf-8")
            seconds, memory = map(float, done.stdout.split())
        kind = "1,000 resamples" if n <= MOST_RESAMPLED else "influence functions"
        rows.append(f"| {n:,} | {kind} | {seconds:.1f} | {memory / 1e9:.2f} |")
        print(rows[-1], flush=True)
    text = f"Made by `make bench-metrics`: both runs' metrics and their comparison, {CHOICES} choices a question.\n\n"
    write_text(HERE / "metrics.md", text + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
