"""How sure a model is of the answers that it wrote: what follows from their tokens, and from other answers to the question."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NOTHING = "[invalid]"
"""What the harness's filters make of an answer in which they find nothing."""


@dataclass(frozen=True)
class Agreement:
    """What answers that are drawn say of the first answer to their question."""

    self_consistency: float
    """The share of them of which the harness's filter makes the same as of the first answer, in [0, 1]; never NOTHING."""
    semantic_entropy: float
    """The entropy of the groups that they form by what the filter makes of them, nats; each NOTHING is a group of its own."""


def agreement(answer: str, drawn: list[str]) -> Agreement:
    """Return how far drawn answers agree with the first answer and with each other.

    Args:
        answer: What the harness's filter made of the first answer.
        drawn: What it made of each of the k others, at least one.

    Reference: Wang et al. 2023 for self-consistency; Farquhar et al. 2024 for the entropy of groups by their frequencies, here
        of equal texts.
    """
    groups = Counter(text for text in drawn if text != NOTHING)
    shares = np.array([*groups.values(), *[1] * drawn.count(NOTHING)]) / len(drawn)
    return Agreement(groups[answer] / len(drawn), float(-(shares * np.log(shares)).sum()) + 0.0)


def with_confidences(generations: pa.Table) -> pa.Table:
    """Return answers with how sure the model is of the first sample of each question; other samples have nothing of it.

    Args:
        generations: Rows under `bitsure.records.generations.GENERATIONS_SCHEMA`.
    """
    first = generations["sample"].to_numpy() == 0
    tokens = pc.list_value_length(generations["tokens"]).to_numpy()
    logprob, entropy = (_sums(generations[name], tokens) for name in ("token_logprobs", "entropies"))
    filtered, is_drawn = (generations[name].to_pylist() for name in ("filtered", "is_drawn"))
    questions = list(zip(generations["task"].to_pylist(), generations["doc_id"].to_pylist(), strict=True))
    drawn: dict[tuple[str, int], list[str]] = defaultdict(list)
    for question, answer, was_drawn in zip(questions, filtered, is_drawn, strict=True):
        if was_drawn:
            drawn[question].append(answer)
    others = [drawn.get(question, []) if is_first else [] for question, is_first in zip(questions, first, strict=True)]
    agreements = [agreement(answer, texts) if texts else None for answer, texts in zip(filtered, others, strict=True)]
    columns = {
        "answer_logprob": pa.array(logprob, mask=~first),
        "token_probability": pa.array(np.exp(np.minimum(logprob / tokens, 0.0)), mask=~first),
        "token_entropy": pa.array(entropy / tokens, mask=~first),
        "answers_drawn": pa.array([len(texts) for texts in others], pa.int32(), mask=~first),
        "self_consistency": pa.array([known and known.self_consistency for known in agreements], pa.float64()),
        "semantic_entropy": pa.array([known and known.semantic_entropy for known in agreements], pa.float64()),
    }
    for name, values in columns.items():
        generations = generations.set_column(generations.schema.get_field_index(name), generations.schema.field(name), values)
    return generations


def _sums(lists: pa.ChunkedArray, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of each list, none of which is empty, shape (rows,)."""
    starts = np.cumsum(lengths) - lengths
    values = lists.combine_chunks().flatten().to_numpy().astype(float)
    sums: NDArray[np.float64] = np.add.reduceat(values, starts) if len(starts) else np.zeros(0)
    return sums
