"""Pairing the questions of two runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.base.errors import UserError
from bitsure.records.record import Records, to_table

IDENTITY = ("task", "doc_hash", "prompt_hash", "target_hash")  # the columns that identify a question across runs
DIFFERENCES = {
    "task": "the tasks differ.",
    "doc_hash": "the documents differ: another data set or split, or another version of the harness's task.",
    "prompt_hash": "the prompts differ: few-shot examples, chat template or the harness's version.",
    "target_hash": "the targets differ: the task's answers were read in another way.",
}


@dataclass(frozen=True)
class Join:
    """The same questions of two runs, row by row, and what has no partner."""

    baseline: pa.Table
    quantized: pa.Table
    unmatched: pa.Table  # the quantized run's questions that the baseline does not have
    only_baseline: dict[str, int]  # task → rows
    only_quantized: dict[str, int]


def join(baseline: Records, quantized: Records) -> Join:
    """Pair the questions of two runs by task and hashes; doc_id breaks a tie of equal hashes.

    Returns:
        The pairs, in the quantized run's order.

    Raises:
        UserError: If nothing joins (the message says what differs), or if the two runs have different correct choices or
            numbers of choices for a question.
    """
    full, quant = to_table(baseline), to_table(quantized)
    full_identities, quant_identities = _identities(full), _identities(quant)
    partners: dict[tuple[str, ...], list[int]] = {}
    for i in reversed(_by_doc_id(full)):
        partners.setdefault(full_identities[i], []).append(i)
    partner = {i: rows.pop() for i in _by_doc_id(quant) if (rows := partners.get(quant_identities[i]))}
    matched = sorted(partner)
    if not matched:
        raise UserError(
            f"No question of the quantized run ({_described(quant)}) is in the baseline ({_described(full)}): "
            f"{_what_differs(full, quant)}"
        )
    only_baseline = Counter(identity[0] for identity, rows in partners.items() for _ in rows)
    only_quantized = Counter(identity[0] for i, identity in enumerate(quant_identities) if i not in partner)
    unmatched = quant.filter(pa.array([i not in partner for i in range(len(quant))]))
    pairs = full.take([partner[i] for i in matched]), quant.take(matched)
    _check_pairs(*pairs)
    return Join(*pairs, unmatched, dict(only_baseline), dict(only_quantized))


def _check_pairs(baseline: pa.Table, quantized: pa.Table) -> None:
    """Raise UserError if the runs disagree on a question's correct choices or number of choices."""
    gold = (pc.binary_join(pc.cast(side["gold"], pa.list_(pa.string())), ",") for side in (baseline, quantized))
    lengths = (pc.list_value_length(side["choice_logprobs"]) for side in (baseline, quantized))
    for columns, problem in (
        (gold, "the two runs name different correct choices for it."),
        (lengths, "the two runs scored different numbers of choices for it."),
    ):
        different = pc.not_equal(*columns)
        if pc.any(different).as_py():
            row = pc.index(different, True).as_py()
            raise UserError(f"task {quantized['task'][row]}, question {quantized['doc_id'][row]}: {problem}")


def _identities(records: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(records[name].to_pylist() for name in IDENTITY), strict=True))


def _by_doc_id(records: pa.Table) -> list[int]:
    return cast("list[int]", np.argsort(records["doc_id"].to_numpy(), kind="stable").tolist())


def _described(records: pa.Table) -> str:
    return f"tasks {sorted(set(records['task'].to_pylist()))}, {len(records)} rows"


def _what_differs(baseline: pa.Table, quantized: pa.Table) -> str:
    """Return the first part of the identity in which two runs have nothing in common, in words."""
    for name, difference in DIFFERENCES.items():
        if not set(baseline[name].to_pylist()) & set(quantized[name].to_pylist()):
            return difference
    return "no row agrees in document, prompt and target together."
