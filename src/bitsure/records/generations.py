"""generations.parquet: one row an answer that a model wrote, with every token's distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa

from bitsure.records.answer_confidences import with_confidences
from bitsure.records.table_file import TableFile

SCORE = pa.struct([("filter", pa.string()), ("metric", pa.string()), ("value", pa.float64())])
GENERATIONS_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("doc_id", pa.int64()),
        ("sample", pa.int32()),  # from 0, which is the answer that metrics are computed of
        ("doc_hash", pa.string()),
        ("prompt_hash", pa.string()),
        ("target_hash", pa.string()),
        ("cluster", pa.string()),  # equal for questions that depend on each other
        ("prompt_tokens", pa.int32()),  # that the model read
        ("prompt_tokens_cut", pa.int32()),  # at the prompt's beginning, because they did not fit into the context
        ("text", pa.string()),  # up to the stop sequence, as the harness has it
        ("filtered", pa.string()),  # the answer that the harness took from it; null of samples that it takes together
        ("target", pa.string()),  # the right answer, as the task has it
        ("correct", pa.bool_()),  # whether it is right, by `correct_by`; null where `filtered` is, and without right answers
        ("correct_by", pa.string()),  # the harness's metric and filter: exact_match,strict-match; empty without right answers
        ("scores", pa.list_(SCORE)),  # all numbers that the harness computed of the answer
        ("ended", pa.string()),  # why it ended: stop, length, end token
        ("tokens", pa.list_(pa.int32())),  # the answer's, the one that ended it included
        ("token_logprobs", pa.list_(pa.float64())),  # in the model's own distribution, before any temperature, nats
        ("entropies", pa.list_(pa.float32())),  # of that distribution, nats
        ("top_tokens", pa.list_(pa.list_(pa.int32()))),  # the likeliest, the likeliest first
        ("top_logprobs", pa.list_(pa.list_(pa.float32()))),  # nats
        ("is_drawn", pa.bool_()),  # whether task.samples drew it; the first sample's confidences follow
        ("answer_logprob", pa.float64()),  # of the whole answer, nats, ≤ 0
        ("token_probability", pa.float64()),  # the geometric mean of its tokens' probabilities, in (0, 1]
        ("token_entropy", pa.float64()),  # the mean of `entropies`, nats, in [0, ln vocabulary]
        ("answers_drawn", pa.int32()),  # how many answers task.samples drew of the question
        ("self_consistency", pa.float64()),  # the share of them whose `filtered` is this one's, in [0, 1]; null of none
        ("semantic_entropy", pa.float64()),  # of their groups by `filtered`, nats, in [0, ln answers_drawn]; null of none
        ("p_true", pa.float64()),  # the model's probability that its answer is true, in [0, 1]; null unless task.p_true
        ("tokenizer", pa.string()),  # a hash of its vocabulary: where it is equal, token ids mean the same
        ("preference", pa.float64()),  # full precision's log-probability of a token here less that of its own answer, nats
    ]
)
CONFIDENCES = (
    "answer_logprob",
    "token_probability",
    "token_entropy",
    "answers_drawn",
    "self_consistency",
    "semantic_entropy",
    "p_true",
)
ADDED_LATER = ("is_drawn", *CONFIDENCES, "tokenizer", "preference")


class HarnessScore(TypedDict):
    """One number that the harness computed of an answer."""

    filter: str
    metric: str
    value: float


@dataclass(frozen=True)
class WrittenAnswer:
    """One answer; GENERATIONS_SCHEMA has the fields' types and units."""

    task: str
    doc_id: int
    sample: int
    doc_hash: str
    prompt_hash: str
    target_hash: str
    cluster: str
    prompt_tokens: int
    prompt_tokens_cut: int
    text: str
    filtered: str | None
    target: str
    correct: bool | None
    correct_by: str
    scores: list[HarnessScore]
    ended: str
    tokens: list[int]
    token_logprobs: list[float]
    entropies: list[float]
    top_tokens: list[list[int]]
    top_logprobs: list[list[float]]
    is_drawn: bool = False
    p_true: float | None = None
    tokenizer: str | None = None


def generations_table(answers: Sequence[WrittenAnswer]) -> pa.Table:
    """Return answers, with the confidences that follow from them, as a table under GENERATIONS_SCHEMA."""
    return with_confidences(pa.Table.from_pylist([vars(answer) for answer in answers], GENERATIONS_SCHEMA))


GENERATIONS_TABLE = TableFile("written answers", GENERATIONS_SCHEMA, ADDED_LATER)


def read_generations(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read answers.

    Returns:
        Rows under GENERATIONS_SCHEMA, and what made them; no row where there is no such file.

    Raises:
        UserError: As `TableFile.read`.
    """
    if not path.is_file():
        return GENERATIONS_SCHEMA.empty_table(), {}
    table, made_from = GENERATIONS_TABLE.read(path)
    return with_confidences(table), made_from
