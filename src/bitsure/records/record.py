"""The sample record, one row per scored question, and what a table of records says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.base.files import hash_json

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("target_hash", pa.string()),
        ("choices", pa.list_(pa.string())),  # without the delimiter before them
        ("gold", pa.list_(pa.int32())),  # indices of the correct choices
        ("choice_logprobs", pa.list_(pa.float64())),  # sum over the choice's tokens, nats, ≤ 0
        ("choice_tokens", pa.list_(pa.int32())),
        ("choice_greedy", pa.list_(pa.bool_())),
        ("token_logprobs", pa.list_(pa.list_(pa.float32()))),
        ("cluster", pa.string()),  # equal for questions that depend on each other; null where unknown
        ("words", pa.int64()),  # of a text that is scored as a whole, as its task counts them; null where it counts none
        ("bytes", pa.int64()),  # of such a text; null for questions
        ("length", pa.int64()),  # of what is searched for the answer, words; null unless the question is about finding one
        ("depth", pa.float64()),  # where in it the answer stands: 0 the beginning, 1 the end; null as `length`
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
    cluster: str | None = None
    words: int | None = None
    bytes: int | None = None
    length: int | None = None
    depth: float | None = None


Records: TypeAlias = Sequence[Record] | pa.Table  # rows, or the same as columns


def to_table(records: Records) -> pa.Table:
    """Return records as a table under SCHEMA; a table is returned as it is."""
    return records if isinstance(records, pa.Table) else pa.Table.from_pylist([vars(record) for record in records], SCHEMA)


def to_records(table: pa.Table) -> list[Record]:
    """Return the rows of a table as records; columns that records do not have, such as those of texts, are left out."""
    return [Record(**row) for row in table.select(SCHEMA.names).to_pylist()]


def by_task(records: Records) -> dict[str, pa.Table]:
    """Return the records of each task, in the order in which the tasks first appear."""
    table = to_table(records)
    return {task: table.filter(pc.equal(table["task"], task)) for task in table["task"].unique().to_pylist()}


def has_choices(records: pa.Table) -> bool:
    """Return whether a task's questions have several choices.

    Otherwise each has one: a continuation, or a whole text, that is scored as it is.
    """
    return len(records["choices"][0]) > 1


def is_text(records: pa.Table) -> bool:
    """Return whether a task scores whole texts, which have a perplexity and no correct answer."""
    return bool(records["bytes"].null_count == 0)


def flat_column(records: pa.Table, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """Return a column of lists as one array.

    Returns:
        The values of all rows in one array, and where each row's list starts in it, shape (rows + 1,); the last is the end.
    """
    column = records[name].combine_chunks()
    starts = column.offsets.to_numpy()
    return column.flatten().to_numpy(zero_copy_only=False), starts - starts[0]


def place_of(document: object) -> tuple[int, float] | tuple[None, None]:
    """Return how long the text is that a question searches, words, and at which depth of it the answer stands, in [0, 1].

    Returns:
        What the document's `length` and `depth` say; None for both unless it has both as numbers.
    """
    fields = cast("dict[str, object]", document) if isinstance(document, dict) else {}
    length, depth = fields.get("length"), fields.get("depth")
    if bool in (type(length), type(depth)):
        return None, None
    if isinstance(length, int) and isinstance(depth, int | float) and 0 <= depth <= 1:
        return length, float(depth)
    return None, None


def cluster_of(document: object, prompt_hash: str) -> str:
    """Return the cluster of a question: questions of one cluster are not independent evidence.

    Returns:
        A hash of the document's `cluster` (the passage, person or whatever the task's author names), else of its `passage`,
        else the hash of its prompt.
    """
    fields = cast("dict[str, object]", document) if isinstance(document, dict) else {}
    shared = fields.get("cluster") or fields.get("passage")
    return hash_json(shared) if shared else prompt_hash
