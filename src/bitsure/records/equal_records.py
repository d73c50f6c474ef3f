"""How many questions two models answer alike, to the last bit."""

from __future__ import annotations

import pyarrow as pa

OUTPUTS = ("choice_logprobs", "choice_greedy", "answer")  # what a model makes of a question; harness logs have no tokens


def equal_records(baseline: pa.Table, quantized: pa.Table) -> int:
    """Return how many questions have equal log-probabilities in two runs, and the same text where the model writes an answer.

    Args:
        baseline: The records of one run.
        quantized: Those of the other one, of the same questions in the same order.
    """
    names = [name for name in OUTPUTS if name in baseline.column_names]
    before, after = (zip(*(side[name].to_pylist() for name in names), strict=True) for side in (baseline, quantized))
    return sum(first == second for first, second in zip(before, after, strict=True))
