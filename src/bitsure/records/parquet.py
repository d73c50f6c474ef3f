"""records.parquet and prompts.parquet: written whole, checked when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitsure.records.generations import WrittenAnswer
from bitsure.records.record import SCHEMA, Record, Records, to_table
from bitsure.records.table_file import TableFile
from bitsure.records.validity import check_records, without_repeats

PROMPTS_SCHEMA = pa.schema([("task", pa.string()), ("doc_id", pa.int64()), ("prompt", pa.string())])
RECORDS_TABLE = TableFile("records", SCHEMA, added_later=("cluster", "words", "bytes"), where_known=("length", "depth"))
PROMPTS_TABLE = TableFile("prompts", PROMPTS_SCHEMA)


def write_records(path: Path, records: Records, made_from: dict[str, Any]) -> None:
    """Write records, whole or not at all.

    Args:
        path: The Parquet file.
        records: The records, as rows or as a table.
        made_from: Model, quantizer, versions and the rest of what made them, for the file's metadata.
    """
    RECORDS_TABLE.write(path, to_table(records), made_from)


def read_records(path: Path, may_be_empty: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """Read records.

    Args:
        path: The Parquet file.
        may_be_empty: Whether a file without rows is allowed, as of a run that scored a text alone.

    Returns:
        The records under `bitsure.records.record.SCHEMA`, and what made them.

    Raises:
        UserError: As `TableFile.read`, or if a row has no numbers.
    """
    table, made_from = RECORDS_TABLE.read(path)
    if may_be_empty and not len(table):
        return table, made_from
    check_records(table, str(path))
    return without_repeats(table, str(path)), made_from


def write_prompts(path: Path, questions: Sequence[Record | WrittenAnswer], prompts: Sequence[str]) -> None:
    """Write the prompts, whole or not at all, a row a question: task, doc_id, prompt."""
    columns = {"task": [row.task for row in questions], "doc_id": [row.doc_id for row in questions], "prompt": list(prompts)}
    PROMPTS_TABLE.write(path, pa.table(columns, PROMPTS_SCHEMA), {})


def read_prompts(path: Path) -> dict[tuple[str, int], str]:
    """Return prompts by task and doc_id; empty if there is no such file. Raises UserError as `TableFile.read`."""
    if not path.is_file():
        return {}
    columns = PROMPTS_TABLE.read(path)[0].to_pydict()
    return dict(zip(zip(columns["task"], columns["doc_id"], strict=True), columns["prompt"], strict=True))
