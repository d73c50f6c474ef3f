"""The log-probabilities of scored tokens, from the hidden states before the output head or from logits.

Logits are worked through in tiles of the vocabulary, which stay in a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from typing import TypeAlias

import torch

from bitsure.scoring.device_copies import Arriving, send
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
    for some in split(states, vocabulary):
        yield len(some), tiles(head(some))


def split(states: torch.Tensor, vocabulary: int) -> Sequence[torch.Tensor]:
    """Return hidden states (n, width) in parts whose logits for the whole vocabulary fit into little memory."""
    return torch.split(states, max(1, LOGITS.get(states.device.type, LOGITS["cpu"]) // vocabulary))


def tiles(logits: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return logits (n, vocabulary) in tiles (n, some of the vocabulary), from left to right."""
    return torch.split(logits, _tile_width(logits), dim=-1)


def _head_tiles(head: torch.nn.Linear, states: torch.Tensor) -> Iterator[torch.Tensor]:
    wide = min(_tile_width(states), len(head.weight))
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


class BatchScores(Mapping[int, Scored]):
    """The log-probabilities of continuations, by request; on a GPU they are waited for when the first is read.

    Args:
        values: Log-probabilities, and whether each token is the most likely one, where the model ran; shape (2, m), float32.
        order: The place of each column among the tokens of all requests, shape (m,).
        lengths: Request → the number of its tokens, in their order.
    """

    def __init__(self, values: torch.Tensor, order: torch.Tensor, lengths: Mapping[int, int]) -> None:
        self._arriving, self._order, self._lengths = Arriving(values), order, lengths

    @cached_property
    def _scored(self) -> dict[int, Scored]:
        values = torch.empty(2, len(self._order))
        values[:, self._order] = self._arriving.wait()
        logprobs, greedy = values[0].tolist(), values[1].bool().tolist()
        scored, start = {}, 0
        for i, length in self._lengths.items():
            scored[i] = Scored(logprobs[start : start + length], all(greedy[start : start + length]))
            start += length
        return scored

    def __getitem__(self, number: int) -> Scored:
        return self._scored[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)


def score(parts: Iterable[Part], rows_of: Mapping[int, Sequence[int]], requests: Requests, device: torch.device) -> BatchScores:
    """Return the log-probabilities of continuations.

    Args:
        parts: The logits' rows, part after part.
        rows_of: Request → for each token of its continuation the row that predicts it, counted through all parts.
        requests: The requests, by number.
        device: Where the logits are.
    """
    rows = torch.tensor([row for predicting in rows_of.values() for row in predicting])
    tokens = torch.tensor([token for i in rows_of for token in requests[i][1]])
    values, order = [torch.empty(2, 0, device=device)], [torch.empty(0, dtype=torch.long)]
    start = 0
    for length, part_tiles in parts:
        inside = ((rows >= start) & (rows < start + length)).nonzero().flatten()
        if len(inside):
            logprobs, greedy = token_logprobs(part_tiles, send(rows[inside] - start, device), send(tokens[inside], device))
            values.append(torch.stack([logprobs, greedy.float()]))
            order.append(inside)
        start += length
    return BatchScores(torch.cat(values, 1), torch.cat(order), {i: len(predicting) for i, predicting in rows_of.items()})


def token_logprobs(
    tiles: Iterable[torch.Tensor], rows: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of one token each in some rows of the logits.

    Args:
        tiles: The logits from left to right, each of shape (n, some of the vocabulary); they are overwritten.
        rows: Rows of the logits, shape (m,), on their device.
        tokens: The token that is scored in each of them, shape (m,).

    Returns:
        Log-probabilities, nats, float32, shape (m,); NaN for a token outside the vocabulary. And whether each token is the most
        likely one, shape (m,); of equal logits the first is, as for argmax.
    """
    logits = torch.full(rows.shape, torch.nan, device=rows.device)
    best_of_tile, tile_of_token = torch.zeros_like(rows, dtype=torch.bool), torch.full_like(rows, -1)
    tops, norms, first = [], [], 0
    for number, stored in enumerate(tiles):
        tile = stored.float()
        top = tile.amax(-1, keepdim=True)
        inside = (tokens >= first) & (tokens < first + tile.shape[1])
        places = (tokens - first).clamp(0, tile.shape[1] - 1)
        chosen = tile[rows, places]
        logits = torch.where(inside, chosen, logits)
        best_of_tile |= _is_first(tile, rows, places, inside & (chosen >= top[rows, 0]))
        tile_of_token.masked_fill_(inside, number)
        tops.append(top)
        finite = top.clamp_min(torch.finfo(tile.dtype).min)  # a padded vocabulary may have a tile that is −∞ throughout
        norms.append(tile.sub_(finite).exp_().sum(-1, keepdim=True).log_().add_(finite))
        first += tile.shape[1]
    best_tile, norm = torch.cat(tops, 1).argmax(-1), torch.cat(norms, 1).logsumexp(-1)
    return logits - norm[rows], best_of_tile & (best_tile[rows] == tile_of_token)


def _is_first(tile: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """Return whether logits that are `largest` in their row of a tile are the first of equals there, shape (m,)."""
    if tile.is_cuda:  # All rows are searched: choosing some would wait for the GPU.
        return largest & (tile.argmax(-1)[rows] == places)
    largest[largest.clone()] = tile[rows[largest]].argmax(-1) == places[largest]
    return largest
