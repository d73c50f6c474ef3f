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


def three_shapes() -> dict[str, list]:
    """200 requests of three shapes; a third of the last shape's are longer than a context of 640 tokens."""
    rng = random.Random(0)
    draw = lambda n: [rng.randrange(5, 1000) for _ in range(n)]  # noqa: E731
    short, middle = [draw(30) for _ in range(17)], [draw(60) for _ in range(17)]
    return {
        "one token": [(context, [token]) for context in short for token in draw(4)][:67],
        "several tokens": [(context, draw(3 + i)) for context in middle for i in range(4)][:67],
        "long": [(draw(rng.randrange(300, 800)), draw(5)) for _ in range(66)],
    }
