"""Records from plain arrays of log-probabilities, as a notebook has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from bitsure.base.errors import UserError
from bitsure.records.record import Record, to_table
from bitsure.records.validity import check_records


def records_from_arrays(choice_logprobs: Sequence[ArrayLike], gold: Sequence[int] | Sequence[Sequence[int]]) -> pa.Table:
    """Return the records of one task, named `questions`.

    Args:
        choice_logprobs: For each of n questions the log-probabilities of its K choices, nats, ≤ 0.
        gold: For each question the index of the right choice, or a list of indices where several are right.

    Raises:
        UserError: If lengths differ, a log-probability is above 0 or not finite, or a gold index names no choice.
    """
    if len(choice_logprobs) != len(gold):
        raise UserError(f"choice_logprobs has {len(choice_logprobs)} questions, gold has {len(gold)}: give one gold for each.")
    rows = [_record(i, logprobs, right) for i, (logprobs, right) in enumerate(zip(choice_logprobs, gold, strict=True))]
    records = to_table(rows)
    check_records(records, "choice_logprobs and gold")
    return records


def _record(number: int, logprobs: ArrayLike, gold: Any) -> Record:
    array = np.asarray(logprobs, dtype=float)
    if array.ndim != 1:
        raise UserError(f"choice_logprobs, question {number}: shape {array.shape}; give an array of shape (K,).")
    values = array.tolist()
    return Record(
        task="questions",
        doc_id=number,
        doc_hash=str(number),
        prompt_hash=str(number),
        target_hash=str(number),
        choices=[str(k) for k in range(len(values))],
        gold=[int(k) for k in np.atleast_1d(gold)],
        choice_logprobs=values,
        choice_tokens=None,
        choice_greedy=[False] * len(values),
        token_logprobs=None,
    )
