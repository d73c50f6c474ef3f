"""Checks that every record has numbers that a confidence can be computed from."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.base.errors import UserError
from bitsure.records.record import flat_column
from bitsure.results.measurement import MACRO

log = logging.getLogger(__name__)

ROUNDING = 1e-6  # how far above 0 rounding to float32 may put a log-probability
NEVER_NULL = ("task", "doc_id", "doc_hash", "prompt_hash", "target_hash", "choices", "gold", "choice_logprobs")
QUESTION = ("task", "doc_id")  # what names a question within one run


def check_records(records: pa.Table, where: str) -> None:
    """Check every row.

    Args:
        records: A table under `bitsure.records.record.SCHEMA`.
        where: The file or directory, for the error message.

    Raises:
        UserError: If a row has no confidence; the first such row is named.
    """
    for name in NEVER_NULL:
        if records[name].null_count:
            raise UserError(f"{where}: {records[name].null_count} rows have no {name}.")
    if not len(records):
        raise UserError(f"{where} holds no questions.")
    if MACRO in pc.unique(records["task"]).to_pylist():
        raise UserError(
            f"{where}: a task is called {MACRO}, which is what the mean over tasks is called. Give it another name."
        )
    for wrong, problem in _problems(records):
        if pc.any(wrong).as_py():
            row = records.slice(pc.index(wrong, True).as_py(), 1).to_pylist()[0]
            raise UserError(
                f"{where}: task {row['task']}, question {row['doc_id']} {problem}: {len(row['choices'])} choices, "
                f"choice_logprobs={row['choice_logprobs']}, gold={row['gold']}."
            )


def _problems(records: pa.Table) -> list[tuple[pa.Array, str]]:
    """Return for each kind of problem which rows have it, (n,) of bool, and its description."""
    names = ("choices", "gold", "choice_logprobs", "choice_tokens")
    lengths = {name: pc.list_value_length(records[name]) for name in names}
    logprobs, starts = flat_column(records, "choice_logprobs")
    bad_logprobs = np.flatnonzero(~(np.isfinite(logprobs) & (logprobs <= ROUNDING)))
    has_bad_logprob = np.zeros(len(records), dtype=bool)
    has_bad_logprob[np.searchsorted(starts, bad_logprobs, side="right") - 1] = True
    gold, gold_starts = flat_column(records, "gold")
    row_of_gold = np.repeat(np.arange(len(records)), np.diff(gold_starts))
    has_bad_gold = np.zeros(len(records), dtype=bool)
    has_bad_gold[row_of_gold[~((gold >= 0) & (gold < np.diff(starts)[row_of_gold]))]] = True  # null is NaN here
    other_counts = pc.fill_null(pc.not_equal(lengths["choices"], lengths["choice_tokens"]), False)
    return [
        (pc.less(lengths["choices"], 1), "has no choices"),
        (_single_among_several(records, lengths["choices"]), "has fewer than two choices, unlike others of its task"),
        (_holding_null(records["choices"]), "has a choice without a text"),
        (pc.not_equal(lengths["choices"], lengths["choice_logprobs"]), "does not have one log-probability per choice"),
        (pc.or_(other_counts, _holding_null(records["choice_tokens"])), "does not have one number of tokens per choice"),
        (pc.equal(lengths["gold"], 0), "has no correct choice"),
        (pa.array(has_bad_gold), "names a correct choice that does not exist"),
        (pa.array(has_bad_logprob), "has a log-probability that is not finite or above 0"),
    ]


def _holding_null(lists: pa.ChunkedArray) -> pa.Array:
    """Return which of n lists hold a null, (n,) of bool."""
    column = lists.combine_chunks()
    rows = pc.list_parent_indices(column).filter(pc.is_null(pc.list_flatten(column)))
    return pc.is_in(pa.array(np.arange(len(column))), rows)


def _single_among_several(records: pa.Table, n_choices: pa.Array) -> pa.Array:
    """Return which rows have one choice in a task whose other questions have more, (n,) of bool."""
    several = pc.unique(records["task"].filter(pc.greater(n_choices, 1)))
    return pc.and_(pc.equal(n_choices, 1), pc.is_in(records["task"], several))


def without_repeats(records: pa.Table, where: str) -> pa.Table:
    """Return records with every question once.

    A document that a task has twice is two questions, with two numbers (doc_id), and stays; those are one cluster.

    Args:
        records: A table under `bitsure.records.record.SCHEMA`.
        where: The file or directory, for messages.

    Returns:
        The table as it is if no question stands twice; else the first row of each, with a warning that names how many went.

    Raises:
        UserError: If the rows of a question differ.
    """
    if _n_distinct(records, QUESTION) == len(records):
        return records
    first: dict[tuple[str, int], int] = {}
    repeated: list[int] = []
    for i, question in enumerate(zip(*(records[name].to_pylist() for name in QUESTION), strict=True)):
        if first.setdefault(question, i) != i:
            repeated.append(i)
    for i in repeated:
        task, doc_id = (records[name][i].as_py() for name in QUESTION)
        if any(records[name][i] != records[name][first[task, doc_id]] for name in NEVER_NULL):
            raise UserError(
                f"{where}: task {task}, question {doc_id} stands there more than once, with different content: several runs "
                "were put into one file. Keep the rows of one run."
            )
    task, doc_id = (records[name][repeated[0]].as_py() for name in QUESTION)
    log.warning(
        "%s: %d rows repeat a question that already stands there (the first: task %s, question %s); each question counts once",
        where,
        len(repeated),
        task,
        doc_id,
    )
    return records.take(sorted(first.values()))


def _n_distinct(records: pa.Table, columns: tuple[str, ...]) -> int:
    return len(records.select(columns).group_by(list(columns)).aggregate([]))
