"""The sample record: one row per scored question, and joining two runs of the same questions."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.errors import UserError

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("target_hash", pa.string()),
        ("choices", pa.list_(pa.string())),  # without the delimiter that stands before them
        ("gold", pa.list_(pa.int32())),  # indices of the right choices
        ("choice_logprobs", pa.list_(pa.float64())),  # sum over the choice's tokens, nats, ≤ 0
        ("choice_tokens", pa.list_(pa.int32())),
        ("choice_greedy", pa.list_(pa.bool_())),
        ("token_logprobs", pa.list_(pa.list_(pa.float32()))),
    ]
)


@dataclass(frozen=True)
class Record:
    """One scored question; SCHEMA has the fields' types and units."""

    task: str
    doc_id: int
    doc_hash: str
    prompt_hash: str
    target_hash: str
    choices: list[str]
    gold: list[int]
    choice_logprobs: list[float]
    choice_tokens: list[int] | None
    choice_greedy: list[bool]
    token_logprobs: list[list[float]] | None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two runs' rows the same question."""
        return self.task, self.doc_hash, self.prompt_hash, self.target_hash


def write(path: Path, records: Sequence[Record], made_from: dict) -> None:
    """Write a Parquet file whole or not at all; `made_from` (model, quantizer, versions …) goes into its metadata."""
    schema = SCHEMA.with_metadata({"bitsure": json.dumps(made_from, ensure_ascii=False)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist([vars(record) for record in records], schema=schema), temporary, compression="zstd")
    temporary.rename(path)


def read(path: Path) -> tuple[list[Record], dict]:
    """The records of a file and what made them. Raises UserError if it is cut short or not a records file."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as records ({error}); remove it and run again.") from error
    if missing := set(SCHEMA.names) - set(table.column_names):
        raise UserError(f"{path} is no records file: it lacks the columns {', '.join(sorted(missing))}.")
    metadata = json.loads((table.schema.metadata or {}).get(b"bitsure", b"{}"))
    return [Record(**row) for row in table.select(SCHEMA.names).to_pylist()], metadata


@dataclass(frozen=True)
class Join:
    """Pairs of (baseline, quantized) records of the same question, and what found no partner."""

    pairs: list[tuple[Record, Record]]
    only_baseline: dict[str, int]  # task → rows
    only_quantized: dict[str, int]


def join(baseline: Sequence[Record], quantized: Sequence[Record]) -> Join:
    """Pair two runs by (task, doc_hash, prompt_hash, target_hash); doc_id breaks a tie of equal hashes.

    Pairs come in the quantized run's order. Raises UserError if nothing joins.
    """
    by_identity: dict[tuple, list[Record]] = {}
    for record in sorted(baseline, key=lambda r: r.doc_id, reverse=True):
        by_identity.setdefault(record.identity, []).append(record)
    partner: dict[int, Record] = {}
    unmatched: list[Record] = []
    for record in sorted(quantized, key=lambda r: r.doc_id):
        candidates = by_identity.get(record.identity)
        if candidates:
            partner[id(record)] = candidates.pop()
        else:
            unmatched.append(record)
    pairs = [(partner[id(record)], record) for record in quantized if id(record) in partner]
    if not pairs:
        raise UserError(
            f"No question of the quantized run (tasks {sorted({r.task for r in quantized})}, {len(quantized)} rows) is in the "
            f"baseline (tasks {sorted({r.task for r in baseline})}, {len(baseline)} rows): prompts, targets or tasks differ."
        )
    left = Counter(record.task for rest in by_identity.values() for record in rest)
    return Join(pairs, dict(left), dict(Counter(record.task for record in unmatched)))


def by_task(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each task, in the order in which the tasks first come."""
    tasks: dict[str, list[Record]] = {}
    for record in records:
        tasks.setdefault(record.task, []).append(record)
    return tasks
