"""Written answers as records: one row a question, so that they are joined, measured and compared as other questions are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitsure.records.generations import CONFIDENCES, GENERATIONS_SCHEMA
from bitsure.records.record import SCHEMA

ANSWER_UNITS_SCHEMA = pa.schema(
    [
        *SCHEMA,  # and of the answer, in memory alone: generations.parquet has more of it
        ("answer", pa.string()),  # its text
        ("filtered", pa.string()),  # the part that the harness judged
        ("target", pa.string()),  # the right answer
        ("correct", pa.bool_()),  # whether it is right; null where the task has no right answers
        ("ended", pa.string()),  # why it ended
        *(GENERATIONS_SCHEMA.field(name) for name in CONFIDENCES),  # how sure the model is
        ("tokenizer", pa.string()),  # where it is equal, token ids mean the same; null in files of earlier versions
        GENERATIONS_SCHEMA.field("preference"),
        ("answer_tokens", pa.list_(pa.int32())),
        ("margins", pa.list_(pa.float64())),  # of each token's distribution: its largest probability less its second largest
    ]
)
ANSWER = "answer"  # what stands for the only choice: two models' texts differ, and are answers to the same question


def answer_units(generations: pa.Table) -> pa.Table:
    """Return the answers that metrics are computed of, the first sample of each question, as records.

    `choice_logprobs` has the log-probability of the whole answer, `choice_tokens` its number of tokens.

    Args:
        generations: Rows under `bitsure.records.generations.GENERATIONS_SCHEMA`.

    Returns:
        Rows under ANSWER_UNITS_SCHEMA.
    """
    rows = generations.filter(pc.equal(generations["sample"], 0)).combine_chunks()
    n = len(rows)
    if n == 0:
        return ANSWER_UNITS_SCHEMA.empty_table()
    ones = pa.array(np.arange(n + 1), pa.int32())
    lengths = pc.list_value_length(rows["tokens"]).to_numpy()
    starts = np.cumsum(lengths) - lengths
    logprobs, probabilities = (rows[name].combine_chunks().flatten() for name in ("token_logprobs", "top_logprobs"))
    offsets = pa.array(np.append(starts, len(logprobs)), pa.int32())
    tokens = pa.ListArray.from_arrays(offsets, logprobs.cast(pa.float32()))
    columns = {name: rows[name] for name in rows.column_names if name in ANSWER_UNITS_SCHEMA.names} | {
        "choices": [[ANSWER]] * n,
        "gold": [[0]] * n,
        "choice_logprobs": pa.ListArray.from_arrays(ones, rows["answer_logprob"].combine_chunks()),
        "choice_tokens": pa.ListArray.from_arrays(ones, pa.array(lengths, pa.int32())),
        "choice_greedy": pa.ListArray.from_arrays(ones, rows["correct"].combine_chunks()),
        "token_logprobs": pa.ListArray.from_arrays(ones, tokens),
        **{name: pa.nulls(n) for name in ("words", "bytes", "length", "depth")},
        "answer": rows["text"],
        "answer_tokens": rows["tokens"],
        "margins": pa.ListArray.from_arrays(offsets, _margins(probabilities)),
    }
    return pa.table({name: columns[name] for name in ANSWER_UNITS_SCHEMA.names}).cast(ANSWER_UNITS_SCHEMA)


def have_other_tokens(before: pa.Table, after: pa.Table) -> bool:
    """Return whether two models' vocabularies differ, so that their tokens cannot be compared."""
    return not before["tokenizer"].equals(after["tokenizer"])


def _margins(top_logprobs: pa.ListArray) -> NDArray[np.float64]:
    """Return the largest probability less the second largest of each distribution, shape (tokens,)."""
    first, second = (np.exp(pc.list_element(pc.list_slice(top_logprobs, 0, 2, return_fixed_size_list=True), k)) for k in (0, 1))
    margins: NDArray[np.float64] = first - second
    return margins


def is_written(records: pa.Table) -> bool:
    """Return whether a task's records are of answers that the model wrote."""
    return "answer" in records.column_names and records["answer"].null_count == 0


def is_open(records: pa.Table) -> bool:
    """Return whether a task's records are of written answers to open questions: none is right or wrong."""
    return is_written(records) and records["correct"].null_count == len(records)
