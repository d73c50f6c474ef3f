"""Prompts laid out in batches whose common beginning, such as few-shot examples, is read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitsure.scoring.generation.generation_request import GenerationRequest
from bitsure.scoring.journal import Limits
from bitsure.scoring.local.rows import common_length

LEAST_SHARED = 16  # tokens of a common beginning that is worth a pass of its own
LEAST_SHARE = 0.25  # of a prompt, that its common beginning with the one before it has, or a new group begins


@dataclass(frozen=True)
class PromptBatch:
    """Requests that are written together."""

    numbers: list[int]
    """The requests' numbers."""
    shared: int
    """How many tokens all their prompts begin with alike, and that are read once; 0 where that is not worth it."""


def prompt_batches(requests: Mapping[int, GenerationRequest], limits: Limits, most_rows: int, share: bool) -> list[PromptBatch]:
    """Lay requests out in batches, the longest first.

    Args:
        requests: The requests, by number.
        limits: The most tokens of a batch, those that it may write counted.
        most_rows: The most requests of a batch.
        share: Whether what prompts have in common at their beginning is read once.
    """
    groups = _groups(requests) if share else [(list(requests), 0)]
    batches = []
    for numbers, shared in groups:
        longest_first = sorted(numbers, key=lambda i: (-_longest(requests[i]), requests[i].prompt, i))
        while longest_first:
            longest = _longest(requests[longest_first[0]])
            n = max(1, min(most_rows, limits.shared // longest))
            some, longest_first = longest_first[:n], longest_first[n:]
            batches.append(PromptBatch(some, shared if len(some) > 1 else 0))
    return sorted(batches, key=lambda batch: -_longest(requests[batch.numbers[0]]))


def _longest(request: GenerationRequest) -> int:
    return len(request.prompt) + request.max_new_tokens


def _groups(requests: Mapping[int, GenerationRequest]) -> list[tuple[list[int], int]]:
    """Return groups of requests whose prompts have a beginning in common, and its length; the others are one group without.

    The last token of a prompt is never shared: each answer begins with its own pass.
    """
    groups: list[tuple[list[int], int]] = []
    for i in sorted(requests, key=lambda i: (requests[i].prompt, i)):
        prompt = requests[i].prompt
        if groups:
            numbers, shared = groups[-1]
            alike = min(common_length(requests[numbers[0]].prompt, prompt), shared, len(prompt) - 1)
            if alike >= max(LEAST_SHARED, LEAST_SHARE * len(prompt)):
                numbers.append(i)
                groups[-1] = numbers, alike
                continue
        groups.append(([i], len(prompt) - 1))
    alone = [i for numbers, _ in groups if len(numbers) == 1 for i in numbers]
    together = [(numbers, shared) for numbers, shared in groups if len(numbers) > 1]
    return together + ([(alone, 0)] if alone else [])
