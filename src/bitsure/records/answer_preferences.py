"""What full precision makes of a quantized model's answers, beside what it makes of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def with_preferences(answers: pa.Table, tokens: pa.Table, own: pa.Table, own_tokens: pa.Table) -> pa.Table:
    """Return a quantized model's answers with full precision's preference for each over its own.

    Answers with the same tokens have a preference of exactly 0; further samples of a question have none.

    Args:
        answers: The quantized model's, under `bitsure.records.generations.GENERATIONS_SCHEMA`.
        tokens: The tokens of the first answers to all questions as full precision scored them, a window an answer, the shortest
            first, under `bitsure.records.text_tokens.TEXT_SCHEMA`.
        own: Full precision's answers to the same questions.
        own_tokens: Their tokens, scored in the same way.
    """
    own_means = {key: (mean, ids) for key, mean, ids in _token_means(own, own_tokens)}
    change = {}
    for key, mean, ids in _token_means(answers, tokens):
        own_mean, own_ids = own_means[key]
        change[key] = 0.0 if ids == own_ids else mean - own_mean
    rows = answers.select(["task", "doc_id", "sample"]).to_pylist()
    column = [change[row["task"], row["doc_id"]] if row["sample"] == 0 else None for row in rows]
    at = answers.schema.get_field_index("preference")
    return answers.set_column(at, answers.schema.field(at), pa.array(column, pa.float64()))


def _token_means(answers: pa.Table, tokens: pa.Table) -> list[tuple[tuple[str, int], float, list[int]]]:
    """Return (task, doc_id), the mean log-probability of a token and the tokens of each first answer, the shortest first."""
    first = answers.filter(pc.equal(answers["sample"], 0)).select(["task", "doc_id", "prompt_tokens", "tokens"]).to_pylist()
    shortest_first: list[dict[str, Any]] = sorted(first, key=lambda row: row["prompt_tokens"] + len(row["tokens"]))
    sums = np.bincount(tokens["window"].to_numpy(), tokens["logprob"].to_numpy().astype(float))
    return [
        ((row["task"], row["doc_id"]), float(total) / len(row["tokens"]), row["tokens"])
        for row, total in zip(shortest_first, sums, strict=True)
    ]
