"""Requests to score, as token ids."""

from __future__ import annotations

import torch


def some_requests(n: int = 60, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(3, 250, (n,), generator=generator).tolist()  # noqa: E731
    shared = draw(9)
    requests = [(draw(1 + i % 17), draw(1 + i % 5)) for i in range(n)]
    return requests + [(shared, [token]) for token in (5, 6, 7)] + [(shared, [5, 6])]
