"""Pairing the questions of two runs."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.base.errors import UserError
from bitsure.records.record import Records, to_table

log = logging.getLogger(__name__)

IDENTITY = ("task", "doc_hash", "prompt_hash", "target_hash")  # the columns that identify a question across runs
DIFFERENCES = {
    "task": "the tasks differ.",
    "doc_hash": "the documents differ: another data set or split, or another version of the harness's task.",
    "prompt_hash": "the prompts differ: few-shot examples, chat template or the harness's version; or, of a text, the settings "
    "text.* that cut it.",
    "target_hash": "the targets differ: the task's answers were read in another way; or, of a text, another tokenizer cut its "
    "windows.",
}


@dataclass(frozen=True)
class Join:
    """The same questions of two runs, row by row, and what has no partner."""

    baseline: pa.Table
    quantized: pa.Table
    only_baseline: dict[str, int]  # task → rows
    only_quantized: dict[str, int]


def join(baseline: Records, quantized: Records) -> Join:
    """Pair the questions of two runs by task, hashes and choices; doc_id breaks a tie of equal ones.

    A question whose choices differ in text or order is another question: it counts as unmatched on both sides, and a warning
    says how many there are and names one.

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
    alone = [i for i in _by_doc_id(quant) if i not in partner]
    _report_other_choices(full, quant, _with_other_choices(partners, alone, quant_identities), bool(matched))
    if not matched:
        raise UserError(
            f"No question of the quantized run ({_described(quant)}) is in the baseline ({_described(full)}): "
            f"{_what_differs(full, quant)}"
        )
    only_baseline = Counter(identity[0] for identity, rows in partners.items() for _ in rows)
    only_quantized = Counter(identity[0] for i, identity in enumerate(quant_identities) if i not in partner)
    pairs = full.take([partner[i] for i in matched]), quant.take(matched)
    _check_gold(*pairs)
    return Join(*pairs, dict(only_baseline), dict(only_quantized))


def _check_gold(baseline: pa.Table, quantized: pa.Table) -> None:
    """Raise UserError if the runs disagree on a question's right choices."""
    before, after = (pc.binary_join(pc.cast(side["gold"], pa.list_(pa.string())), ",") for side in (baseline, quantized))
    _check_equal(before, after, quantized, "the two runs name different correct choices for it.")


def _check_equal(baseline: pa.ChunkedArray, quantized: pa.ChunkedArray, questions: pa.Table, problem: str) -> None:
    different = pc.not_equal(baseline, quantized)
    if pc.any(different).as_py():
        row = pc.index(different, True).as_py()
        raise UserError(f"task {questions['task'][row]}, question {questions['doc_id'][row]}: {problem}")


def _identities(records: pa.Table) -> list[tuple[str, ...]]:
    """Return what identifies each question across runs, the choices last."""
    return list(zip(*(records[name].to_pylist() for name in IDENTITY), _choices(records), strict=True))


def _choices(records: pa.Table) -> list[str]:
    """Return each question's choices as one text, without space before a choice: logs do not tell it from the delimiter."""
    choices = records["choices"].combine_chunks()
    texts = pc.utf8_ltrim_whitespace(choices.flatten())
    first = choices.offsets[0].as_py() if len(choices) else 0
    lists = pa.ListArray.from_arrays(pc.subtract(choices.offsets, first), texts)
    return cast("list[str]", pc.binary_join(lists, "\x1f").to_pylist())


def _with_other_choices(
    left: dict[tuple[str, ...], list[int]], alone: list[int], identities: list[tuple[str, ...]]
) -> list[tuple[int, int]]:
    """Return the rows, on both sides, of questions without a partner that agree in everything but the choices.

    Args:
        left: Identity → the baseline's rows without a partner.
        alone: The quantized run's rows without one.
        identities: The identity of each of the quantized run's rows.
    """
    by_hashes: dict[tuple[str, ...], list[int]] = {}
    for identity, rows in left.items():
        by_hashes.setdefault(identity[:-1], []).extend(rows)
    return [(candidates.pop(), i) for i in alone if (candidates := by_hashes.get(identities[i][:-1], []))]


def _report_other_choices(baseline: pa.Table, quantized: pa.Table, pairs: list[tuple[int, int]], any_joined: bool) -> None:
    """Warn of questions that have other choices in the two runs; raise UserError if nothing else is left, or numbers differ."""
    if not pairs:
        return
    before, after = baseline.take([i for i, _ in pairs]), quantized.take([i for _, i in pairs])
    n_before, n_after = (pc.list_value_length(side["choice_logprobs"]) for side in (before, after))
    _check_equal(n_before, n_after, after, "the two runs scored different numbers of choices for it.")
    full, quant = before.slice(0, 1).to_pylist()[0], after.slice(0, 1).to_pylist()[0]
    described = (
        f"{len(pairs)} questions have the same document, prompt and target but other choices, in text or order; the first is "
        f"task {quant['task']}, question {quant['doc_id']}: {full['choices']} and {quant['choices']}"
    )
    if not any_joined:
        raise UserError(f"No question of the quantized run is in the baseline: {described}.")
    log.warning("%s. They are not compared.", described)


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
