"""Requests to score, as token ids."""

from __future__ import annotations

import random

import torch


def some_requests(n: int = 60, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(3, 250, (n,), generator=generator).tolist()  # noqa: E731
    shared = draw(9)
    requests = [(draw(1 + i % 17), draw(1 + i % 5)) for i in range(n)]
    return requests + [(shared, [token]) for token in (5, 6, 7)] + [(shared, [5, 6])]


def branching_questions(seed: int = 0) -> dict:
    """12 questions of unlike lengths, half after the same 40 tokens, with choices that share a stem or are one token."""
    rng = random.Random(seed)
    draw = lambda n: [rng.randrange(3, 300) for _ in range(n)]  # noqa: E731
    examples, asked = draw(40), []
    for q in range(12):
        context, stem = (examples if q % 2 else []) + draw(5 + 3 * q), draw(2)
        asked += [(context, stem + draw(1 + k)) for k in range(3)] + [(context, [7]), (context, [8])]
    return dict(enumerate(asked))


def lay_out(requests: dict):
    """The requests in rows that share prefixes, as long as they may be."""
    from bitsure.scoring.local.rows import trees

    return trees(requests, 64, 10_000)
