"""The log-probability of every token of every continuation, in batches of similar length. Plain torch, no harness."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from bitsure.errors import UserError

log = logging.getLogger(__name__)

BATCH_TOKENS = 4096
BATCH_LOGITS = 2**27  # values; half a gigabyte in float32


@dataclass(frozen=True)
class Scored:
    """One continuation: a log-probability (nats) for each of its tokens, and whether each was the likeliest."""

    token_logprobs: list[float]
    greedy: bool

    @property
    def logprob(self) -> float:
        return sum(self.token_logprobs)


def score(
    model: torch.nn.Module,
    requests: Sequence[tuple[list[int], list[int]]],
    max_length: int,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Scored]:
    """Score continuations given contexts, both as token ids.

    A context too long for the model loses its beginning, as in the harness. Requests with the same input (choices of
    one token after the same context) share one row. Raises UserError for a continuation that is empty or
    longer than the model's context.
    """
    by_input: dict[tuple[int, ...], list[int]] = {}
    truncated = 0
    for i, (context, continuation) in enumerate(requests):
        if not continuation or not context:
            raise UserError("A choice, or what stands before it, has no tokens: there is nothing to score.")
        if len(continuation) > max_length:
            raise UserError(f"A continuation of {len(continuation)} tokens does not fit the model's context of {max_length}.")
        truncated += len(context) + len(continuation) > max_length + 1
        by_input.setdefault(tuple((context + continuation)[-(max_length + 1) :][:-1]), []).append(i)
    if truncated:
        log.warning("%d of %d inputs were longer than %d tokens and lost their beginning", truncated, len(requests), max_length)
    results: list[Scored | None] = [None] * len(requests)
    for batch in _batches(sorted(by_input, key=len, reverse=True), model.config.vocab_size):
        width = len(batch[0])
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits
            for row, row_logits in zip(batch, logits, strict=True):
                members = by_input[row]
                longest = max(len(requests[i][1]) for i in members)
                logprobs = row_logits[len(row) - longest : len(row)].float().log_softmax(-1)
                for i in members:
                    results[i] = _pick(logprobs, requests[i][1])
        advance(sum(len(by_input[row]) for row in batch))
    return results


def _pick(logprobs: torch.Tensor, continuation: list[int]) -> Scored:
    """Of (positions, vocabulary) log-probabilities, the last ones belonging to the continuation, those of its tokens."""
    logprobs = logprobs[-len(continuation) :]
    tokens = torch.tensor(continuation, device=logprobs.device)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    return Scored(chosen.tolist(), bool((logprobs.argmax(-1) == tokens).all()))


def _batches(rows: list[tuple[int, ...]], vocabulary: int) -> Iterator[list[tuple[int, ...]]]:
    """Rows of falling length, cut into batches of at most BATCH_TOKENS padded tokens (and at least one row)."""
    budget = min(BATCH_TOKENS, BATCH_LOGITS // vocabulary)
    start = 0
    while start < len(rows):
        size = max(1, budget // len(rows[start]))
        yield rows[start : start + size]
        start += size
