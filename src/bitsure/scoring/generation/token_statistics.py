"""What is kept of the distribution that each token of an answer comes from."""

from __future__ import annotations

from typing import NamedTuple

import torch

KEPT = 5  # alternatives for each token
LEAST = -1e4  # nats below the likeliest token: such a probability is 0, and 0 times infinity is NaN


class TokenStatistics(NamedTuple):
    """Statistics of n distributions over the vocabulary."""

    token: list[int]
    """The chosen token, (n,)."""
    logprob: list[float]
    """Its log-probability, nats, (n,)."""
    entropy: list[float]
    """The entropy, nats, (n,)."""
    top_tokens: list[list[int]]
    """The likeliest tokens, (n, KEPT) or fewer where the vocabulary is smaller."""
    top_logprobs: list[list[float]]
    """Their log-probabilities, nats."""


def token_statistics(logits: torch.Tensor, chosen: torch.Tensor) -> TokenStatistics:
    """Return what is kept of some distributions.

    Sums are taken in doubles, so that a probability near 1 keeps the digits of what is missing to 1.

    Args:
        logits: Shape (n, vocabulary), float32.
        chosen: The chosen tokens, shape (n,).
    """
    top = logits.topk(min(KEPT, logits.shape[-1]), dim=-1)
    below = (logits - top.values[:, :1]).clamp_(min=LEAST)
    weights = below.exp()
    total = weights.sum(-1, dtype=torch.float64)
    log_total = total.log()
    entropy = log_total - weights.mul_(below).sum(-1, dtype=torch.float64) / total
    logprob = below.gather(-1, chosen[:, None])[:, 0].double() - log_total
    top_logprobs = (top.values - top.values[:, :1]).double() - log_total[:, None]
    single = torch.stack([chosen.double(), logprob, entropy.clamp(min=0)], 1)
    # All in one tensor, since each copy to main memory waits for a GPU; doubles hold every token id exactly.
    rows = torch.cat([single, top.indices.double(), top_logprobs.float().double()], 1).tolist()
    k = top.indices.shape[1]
    return TokenStatistics(
        [int(row[0]) for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [list(map(int, row[3 : 3 + k])) for row in rows],
        [row[3 + k :] for row in rows],
    )
