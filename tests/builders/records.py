"""Records of questions, built by hand."""

from __future__ import annotations

from bitsure.records.record import Record


def record(logprobs, gold=0, task="t", doc_id=0, **changes) -> Record:
    """A record with the given choice log-probabilities; hashes follow from task and doc_id."""
    fields = {
        "task": task,
        "doc_id": doc_id,
        "doc_hash": f"doc{doc_id}",
        "prompt_hash": f"prompt{doc_id}",
        "target_hash": f"target{doc_id}",
        "choices": [f"choice {i}" for i in range(len(logprobs))],
        "gold": gold if isinstance(gold, list) else [gold],
        "choice_logprobs": [float(z) for z in logprobs],
        "choice_tokens": [1] * len(logprobs),
        "choice_greedy": [False] * len(logprobs),
        "token_logprobs": [[float(z)] for z in logprobs],
    }
    return Record(**(fields | changes))
