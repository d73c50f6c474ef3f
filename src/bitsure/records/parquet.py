"""records.parquet and prompts.parquet: written whole, checked when they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base.decoded_size import check_decoded_size
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path
from bitsure.records.generations import WrittenAnswer
from bitsure.records.record import SCHEMA, Record, Records, to_table
from bitsure.records.validity import check_records, without_repeats
from bitsure.results import check

PROMPTS_SCHEMA = pa.schema([("task", pa.string()), ("doc_id", pa.int64()), ("prompt", pa.string())])
ADDED_LATER = ("cluster", "words", "bytes")  # columns that files of earlier versions lack


def write_records(path: Path, records: Records, made_from: dict[str, Any]) -> None:
    """Write records, whole or not at all.

    Args:
        path: The Parquet file.
        records: The records, as rows or as a table.
        made_from: Model, quantizer, versions and the rest of what made them, for the file's metadata.
    """
    metadata = {"bitsure": json.dumps(made_from, ensure_ascii=False)}
    with atomic_path(path) as temporary:
        pq.write_table(to_table(records).replace_schema_metadata(metadata), temporary, compression="zstd")


def read_records(path: Path, may_be_empty: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """Read records.

    Args:
        path: The Parquet file.
        may_be_empty: Whether a file without rows is allowed, as of a run that scored a text alone.

    Returns:
        The records under `bitsure.records.record.SCHEMA`, and what made them.

    Raises:
        UserError: If the file is truncated, is no records file, has a row without numbers, or is far larger when it is read.
    """
    try:
        check_decoded_size(path)
        table = pq.read_table(path)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as records ({error}); remove it and run again.") from error
    for name in ADDED_LATER:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), SCHEMA.field(name).type))
    if missing := set(SCHEMA.names) - set(table.column_names):
        raise UserError(f"{path} is no records file: it lacks the columns {', '.join(sorted(missing))}.")
    try:
        metadata = json.loads((table.schema.metadata or {}).get(b"bitsure", b"{}"))
        table = table.select(SCHEMA.names).replace_schema_metadata().cast(SCHEMA)  # others write larger types
    except (pa.ArrowException, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no records file ({error}).") from error
    made_from = check(metadata, dict[str, Any], f"{path} is no records file: what it was made from")
    if may_be_empty and not len(table):
        return table, made_from
    check_records(table, str(path))
    return without_repeats(table, str(path)), made_from


def write_prompts(path: Path, questions: Sequence[Record | WrittenAnswer], prompts: Sequence[str]) -> None:
    """Write the prompts, whole or not at all, a row a question: task, doc_id, prompt."""
    columns = {"task": [row.task for row in questions], "doc_id": [row.doc_id for row in questions], "prompt": list(prompts)}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read_prompts(path: Path) -> dict[tuple[str, int], str]:
    """Return prompts by task and doc_id; empty if there is no such file. Raises UserError if it is truncated."""
    if not path.is_file():
        return {}
    try:
        check_decoded_size(path)
        columns = pq.read_table(path, columns=PROMPTS_SCHEMA.names).cast(PROMPTS_SCHEMA).to_pydict()
        return dict(zip(zip(columns["task"], columns["doc_id"], strict=True), columns["prompt"], strict=True))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as prompts ({error}); remove it to have a report without prompts.") from error
