"""The log-probabilities of scored tokens, from the hidden states before the output head or from logits.

Logits are worked through in tiles of the vocabulary, which stay in a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TypeAlias

import torch

from bitsure.scoring.requests import Requests, Scored

TILE = {"cpu": 2**21, "cuda": 2**27}  # logits of a tile; a CPU's stay in its cache
LOGITS = {"cpu": 2**25, "cuda": 2**27}  # logits at once, where the head gives them for the whole vocabulary only

Part: TypeAlias = tuple[int, Iterable[torch.Tensor]]
"""Consecutive rows of logits: their number n, and their tiles from left to right, each of shape (n, some of the vocabulary)."""


def logits_in_parts(head: torch.nn.Module, states: torch.Tensor, vocabulary: int) -> Iterator[Part]:
    """Apply an output head, part by part.

    An ordinary head makes one part, whose tiles share one piece of memory: whole logits would be written to memory and read
    again. A head whose weight is elsewhere, such as on disk, is called, so that accelerate brings it.

    Args:
        head: The output head.
        states: The hidden states before it, shape (n, width).
        vocabulary: The number of tokens that it gives logits for.

    Yields:
        Parts of the logits' rows; a tile is valid until the next one is taken.
    """
    hooked = head._forward_pre_hooks or head._forward_hooks
    if type(head) is torch.nn.Linear and head.weight.device == states.device and not hooked:
        yield len(states), _head_tiles(head, states)
        return
    for some in torch.split(states, max(1, LOGITS.get(states.device.type, LOGITS["cpu"]) // vocabulary)):
        yield len(some), tiles(head(some))


def tiles(logits: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return logits (n, vocabulary) in tiles (n, some of the vocabulary), from left to right."""
    return torch.split(logits, _tile_width(logits), dim=-1)


def _head_tiles(head: torch.nn.Linear, states: torch.Tensor) -> Iterator[torch.Tensor]:
    wide = _tile_width(states)
    buffer = states.new_empty(len(states) * wide)
    biases = [None] if head.bias is None else torch.split(head.bias, wide)
    for weight, bias in zip_longest(torch.split(head.weight, wide), biases):
        tile = buffer[: len(states) * len(weight)].view(len(states), len(weight))
        if bias is None:
            yield torch.mm(states, weight.T, out=tile)
        else:
            yield torch.addmm(bias, states, weight.T, out=tile)  # rounded once, as the head itself does


def _tile_width(rows: torch.Tensor) -> int:
    return max(1, TILE.get(rows.device.type, TILE["cpu"]) // max(1, len(rows)))


def score(parts: Iterable[Part], rows_of: Mapping[int, Sequence[int]], requests: Requests) -> dict[int, Scored]:
    """Return the log-probabilities of continuations.

    Args:
        parts: The logits' rows, part after part.
        rows_of: Request → for each token of its continuation the row that predicts it, counted through all parts.
        requests: The requests, by number.

    Returns:
        Request → the log-probabilities of its continuation.
    """
    rows = torch.tensor([row for predicting in rows_of.values() for row in predicting])
    tokens = torch.tensor([token for i in rows_of for token in requests[i][1]])
    logprobs, greedy = torch.empty(len(rows)), torch.empty(len(rows), dtype=torch.bool)
    start = 0
    for length, part_tiles in parts:
        inside = ((rows >= start) & (rows < start + length)).nonzero().flatten()
        if len(inside):
            logprobs[inside], greedy[inside] = token_logprobs(part_tiles, rows[inside] - start, tokens[inside])
        start += length
    all_logprobs, all_greedy = logprobs.tolist(), greedy.tolist()
    scored, start = {}, 0
    for i, predicting in rows_of.items():
        end = start + len(predicting)
        scored[i] = Scored(all_logprobs[start:end], all(all_greedy[start:end]))
        start = end
    return scored


def token_logprobs(
    tiles: Iterable[torch.Tensor], rows: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of one token each in some rows of the logits.

    Args:
        tiles: The logits from left to right, each of shape (n, some of the vocabulary); they are overwritten.
        rows: Rows of the logits, shape (m,).
        tokens: The token that is scored in each of them, shape (m,).

    Returns:
        Log-probabilities, nats, float32, shape (m,); NaN for a token outside the vocabulary. And whether each token is the most
        likely one, shape (m,); of equal logits the first is, as for argmax.
    """
    logits = torch.full((len(rows),), torch.nan)
    best_of_tile, tile_of_token = torch.zeros(len(rows), dtype=torch.bool), torch.full_like(rows, -1)
    tops, norms, first = [], [], 0
    for number, stored in enumerate(tiles):
        tile = stored.float()
        top = tile.amax(-1, keepdim=True)
        inside = ((tokens >= first) & (tokens < first + tile.shape[1])).nonzero().flatten()
        if len(inside):
            tile_rows, places = rows[inside].to(tile.device), tokens[inside].to(tile.device) - first
            chosen = tile[tile_rows, places]
            best = chosen >= top[tile_rows, 0]
            best[best.clone()] = tile[tile_rows[best]].argmax(-1) == places[best]
            logits[inside], best_of_tile[inside], tile_of_token[inside] = chosen.cpu(), best.cpu(), number
        tops.append(top)
        finite = top.clamp_min(torch.finfo(tile.dtype).min)  # a padded vocabulary may have a tile that is −∞ throughout
        norms.append(tile.sub_(finite).exp_().sum(-1, keepdim=True).log_().add_(finite))
        first += tile.shape[1]
    best_tile, norm = torch.cat(tops, 1).argmax(-1).cpu(), torch.cat(norms, 1).logsumexp(-1).cpu()
    return logits - norm[rows], best_of_tile & (best_tile[rows] == tile_of_token)
