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
from bitsure.config.text import OF_ANSWERS
from bitsure.records.record import SCHEMA

UNITS_SCHEMA = pa.schema(
    [
        *SCHEMA,  # and of a document's or window's tokens, in memory alone: texts.parquet has them in rows of their own
        ("tokens", pa.list_(pa.int32())),
        ("top_tokens", pa.list_(pa.int32())),
        ("top_probs", pa.list_(pa.float64())),
        ("positions", pa.list_(pa.int64())),  # in the document; of a written answer, in the answer; from 0
        ("kl_divergences", pa.list_(pa.float64())),  # null for full precision
        ("scored_by", pa.string()),  # what identifies the model; null where it is not known
        ("compared_with", pa.string()),  # what identifies the model that the divergences are from
        ("vocabulary", pa.int64()),  # how many tokens the model gives probabilities to; null where it is not known
    ]
)
OF_TOKENS = ("position", "token", "logprob", "top_token", "top_prob", "kl_divergence")  # texts.parquet's columns, kept a token
DOCUMENT, WINDOW = "document", "window"
"""What a row stands for: what intervals resample, since tokens within it are not independent."""


def is_of_written(task: str) -> bool:
    """Return whether a text is the answers that full precision wrote to a task's questions."""
    return task.startswith("text/") and task.endswith(f"/{OF_ANSWERS}")


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
        made_from: Task → what its rows were made from; `text` in it identifies the text and how it is cut, `vocabulary` is
            the number of tokens that have probabilities; files of earlier versions lack it.

    Returns:
        Rows under `UNITS_SCHEMA`; `words` is null, since protocols cut through words.
    """
    tasks = tokens["task"].unique().to_pylist()
    parts = [_units(task, tokens.filter(pc.equal(tokens["task"], task)), made_from.get(task, {})) for task in tasks]
    return pa.concat_tables([UNITS_SCHEMA.empty_table(), *parts])


def with_units(records: pa.Table, units: pa.Table) -> pa.Table:
    """Return the records of questions and those of a text as one table; what only a text has is null for questions."""
    return pa.concat_tables([records, units], promote_options="default")


def has_tokens(records: pa.Table) -> bool:
    """Return whether one task's records are of a text whose tokens are known."""
    return "top_tokens" in records.column_names and records["top_tokens"].null_count == 0


def vocabulary_of(records: pa.Table) -> int | None:
    """Return how many tokens the model gives probabilities to that one text's records are of; None where it is not known."""
    size: int | None = records["vocabulary"][0].as_py() if "vocabulary" in records.column_names else None
    return size


def token_column(records: pa.Table, name: str) -> NDArray[Any]:
    """Return a column of UNITS_SCHEMA's lists, or of `token_logprobs`, as one value a token, shape (tokens,)."""
    lists = records[name].combine_chunks()
    values: NDArray[Any] = (lists.flatten() if name == "token_logprobs" else lists).flatten().to_numpy()
    return values


def token_units(records: pa.Table) -> NDArray[np.int64]:
    """Return which row of a text's records each of its tokens is in, from 0, shape (tokens,)."""
    return np.repeat(np.arange(len(records)), pc.list_value_length(records["top_tokens"]).to_numpy())


def compared_with_each_other(baseline: pa.Table, quantized: pa.Table) -> bool:
    """Return whether the divergences in a text's records are from the very model that other records are of."""
    scored, compared = (set(side[name].to_pylist()) for side, name in ((baseline, "scored_by"), (quantized, "compared_with")))
    return scored == compared and None not in scored


def _units(task: str, tokens: pa.Table, made_from: Mapping[str, Any]) -> pa.Table:
    unit = unit_name(tokens)
    tokens = tokens.take(pa.array(np.argsort(tokens[unit].to_numpy(), kind="stable")))
    units, starts = np.unique(tokens[unit].to_numpy(), return_index=True)
    logprobs = tokens["logprob"].to_numpy().astype(np.float64)
    text = made_from.get("text", {})
    ours, cut = hash_json([task, text.get("sha256")]), hash_json(text)
    hashes, n = [hash_json([ours, unit, number]) for number in units.tolist()], len(units)
    offsets = pa.array(np.append(starts, len(tokens)), pa.int32())
    ones = pa.array(np.arange(n + 1), pa.int32())
    lists = {name: pa.ListArray.from_arrays(offsets, tokens[name].combine_chunks()) for name in OF_TOKENS}
    divergences, scored_by, compared_with = pa.nulls(n), _model(made_from), None
    if tokens["kl_divergence"].null_count == 0:
        divergences = lists["kl_divergence"]
        compared_with = _model({**made_from, "weights": None})
    greedy = tokens["token"].to_numpy() == tokens["top_token"].to_numpy()
    columns = {
        "task": [task] * n,
        "doc_id": units.astype(np.int64),
        "doc_hash": hashes,
        "prompt_hash": [cut] * n,
        "target_hash": [""] * n if unit == DOCUMENT else _hashes(tokens["token"].to_numpy(), starts),
        "choices": [[unit]] * n,
        "gold": [[0]] * n,
        "choice_logprobs": pa.ListArray.from_arrays(ones, np.add.reduceat(logprobs, starts)),
        "choice_tokens": pa.ListArray.from_arrays(ones, pa.array(np.diff(starts, append=len(tokens)), pa.int32())),
        "choice_greedy": pa.ListArray.from_arrays(ones, np.logical_and.reduceat(greedy, starts)),
        "token_logprobs": pa.ListArray.from_arrays(ones, lists["logprob"]),
        "cluster": hashes,
        **{name: pa.nulls(n) for name in ("words", "length", "depth")},
        "bytes": np.add.reduceat(tokens["bytes"].to_numpy().astype(np.int64), starts),
        "tokens": lists["token"],
        "top_tokens": lists["top_token"],
        "top_probs": lists["top_prob"],
        "positions": lists["position"],
        "kl_divergences": divergences,
        "scored_by": pa.array([scored_by] * n, pa.string()),
        "compared_with": pa.array([compared_with] * n, pa.string()),
        "vocabulary": pa.array([made_from.get("vocabulary")] * n, pa.int64()),
    }
    arrays = {name: pa.array(values) if isinstance(values, np.ndarray) else values for name, values in columns.items()}
    return pa.table(arrays).select(UNITS_SCHEMA.names).cast(UNITS_SCHEMA)


def _hashes(tokens: NDArray[np.int32], starts: NDArray[np.int64]) -> list[str]:
    """Return a hash of each window's tokens: another tokenizer's windows are other parts of the text."""
    return [hashlib.sha256(part.tobytes()).hexdigest() for part in np.split(tokens, starts[1:])]


def _model(made_from: Mapping[str, Any]) -> str | None:
    """Return what identifies a model and the type that it computed in; None where that is not known."""
    if "model" not in made_from:
        return None
    return hash_json([made_from.get(name) for name in ("model", "weights", "dtype")])
