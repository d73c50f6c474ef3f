"""A text's tokens as records: one row for each document, or for each window where one document is all that is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitsure.base.files import hash_json
from bitsure.records.record import SCHEMA

DOCUMENT, WINDOW = "document", "window"
"""What a row stands for: what intervals resample, since tokens within it are not independent."""


def unit_name(tokens: pa.Table) -> str:
    """Return what intervals of a text resample: documents, or windows where there is one document.

    Args:
        tokens: Rows of one text under `bitsure.records.text_tokens.TEXT_SCHEMA`.
    """
    return DOCUMENT if pc.count_distinct(tokens["document"]).as_py() > 1 else WINDOW


def unit_of(records: pa.Table) -> str:
    """Return what a row of one task's records stands for: a question, or a document or window of a text."""
    is_cut = records["bytes"].null_count == 0 and records["words"].null_count == len(records)
    return str(records["choices"][0][0]) if is_cut else "question"


def text_units(tokens: pa.Table, made_from: Mapping[str, Any]) -> pa.Table:
    """Return the texts' documents or windows as records, so that they are joined, measured and compared as whole texts are.

    Args:
        tokens: Rows under `bitsure.records.text_tokens.TEXT_SCHEMA`, of any number of texts.
        made_from: Task → what its rows were made from; `text` in it identifies the text and how it is cut.

    Returns:
        Rows under `bitsure.records.record.SCHEMA`; `words` is null, since protocols cut through words.
    """
    tasks = tokens["task"].unique().to_pylist()
    parts = [_units(task, tokens.filter(pc.equal(tokens["task"], task)), made_from.get(task, {})) for task in tasks]
    return pa.concat_tables([SCHEMA.empty_table(), *parts])


def _units(task: str, tokens: pa.Table, made_from: Mapping[str, Any]) -> pa.Table:
    unit = unit_name(tokens)
    numbers = tokens[unit].to_numpy()
    order = np.argsort(numbers, kind="stable")
    units, starts = np.unique(numbers[order], return_index=True)
    logprobs = tokens["logprob"].to_numpy()[order].astype(np.float64)
    text = made_from.get("text", {})
    ours, cut = hash_json([task, text.get("sha256")]), hash_json(text)
    n = len(units)
    offsets = pa.array(np.append(starts, len(order)), pa.int32())
    ones = pa.array(np.arange(n + 1), pa.int32())
    greedy = tokens["token"].to_numpy() == tokens["top_token"].to_numpy()
    columns = {
        "task": [task] * n,
        "doc_id": units.astype(np.int64),
        "doc_hash": [hash_json([ours, unit, number]) for number in units.tolist()],
        "prompt_hash": [cut] * n,
        "target_hash": [""] * n if unit == DOCUMENT else _hashes(tokens["token"].to_numpy()[order], starts),
        "choices": [[unit]] * n,
        "gold": [[0]] * n,
        "choice_logprobs": pa.ListArray.from_arrays(ones, np.add.reduceat(logprobs, starts)),
        "choice_tokens": pa.ListArray.from_arrays(ones, pa.array(np.diff(starts, append=len(order)), pa.int32())),
        "choice_greedy": pa.ListArray.from_arrays(ones, np.logical_and.reduceat(greedy[order], starts)),
        "token_logprobs": pa.ListArray.from_arrays(ones, pa.ListArray.from_arrays(offsets, logprobs.astype(np.float32))),
        "cluster": [hash_json([ours, unit, number]) for number in units.tolist()],
        "words": pa.nulls(n, pa.int64()),
        "bytes": np.add.reduceat(tokens["bytes"].to_numpy()[order].astype(np.int64), starts),
    }
    return pa.table(
        {name: pa.array(values) if isinstance(values, np.ndarray) else values for name, values in columns.items()}
    ).cast(SCHEMA)


def _hashes(tokens: NDArray[np.int32], starts: NDArray[np.int64]) -> list[str]:
    """Return a hash of each window's tokens: another tokenizer's windows are other parts of the text."""
    return [hashlib.sha256(part.tobytes()).hexdigest() for part in np.split(tokens, starts[1:])]
