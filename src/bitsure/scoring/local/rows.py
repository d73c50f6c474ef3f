"""Requests laid out so that every distinct prefix of tokens is run once.

The inputs of several requests make a tree: what they share at their beginning (few-shot examples, a context) is one branch,
and every continuation is a branch of its own. A row is such a tree, its tokens in one sequence. A token attends to its
ancestors only and its position is its depth, so its hidden state is the one that it has in its own input. Plain numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitsure.scoring.requests import Requests, input_tokens

SMALLEST_ROW = 96  # tokens; trees of a few questions fill it
BATCH_COST = 1 / 16  # what a batch costs beside its tokens, as a share of the most tokens that a batch may have


@dataclass
class TreeRow:
    """A tree of tokens, parents before children. Nodes are places in `tokens`."""

    tokens: list[int] = field(default_factory=list)
    """Token ids."""
    positions: list[int] = field(default_factory=list)
    """The depth of each token; the root's is 0."""
    branches: list[tuple[int, int, int]] = field(default_factory=list)
    """For each branch its first node, one past its last node, and the parent of its first node, or −1."""
    scored: dict[int, list[int]] = field(default_factory=dict)
    """Request → the nodes that predict its continuation, one for each token."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def splits(self) -> bool:
        """Whether the row can be cut into shorter rows."""
        return len(self.branches) > 1

    def ends(self) -> NDArray[np.int64]:
        """Return where the tokens that come after each token on its branches end: node i attends to j if j ≤ i < ends[j].

        Returns:
            Shape (n,). Tokens that come after one stand behind it without a gap, since branches follow each other as their
            inputs do in sorted order.
        """
        ends, starts = np.empty((2, len(self)), dtype=np.int64)
        for first, end, _ in self.branches:
            ends[first:end], starts[first:end] = end, first
        for first, _, parent in reversed(self.branches):
            if parent >= 0:
                before = slice(starts[parent], parent + 1)
                ends[before] = np.maximum(ends[before], ends[first])
        return ends


def trees(requests: Requests, width: int, most: int) -> list[TreeRow]:
    """Lay requests out in rows that share prefixes.

    Args:
        requests: Requests by number.
        width: The model's hidden size, from which the best length of a row follows.
        most: The most tokens of a row; one request alone may have more.

    Returns:
        Rows in which every request is scored once. A question's choices are in one row if they fit.
    """
    questions = _questions(requests)
    capacity = min(most, max(SMALLEST_ROW, _best_length(_typically_shared(questions, requests), width)))
    rows: list[TreeRow] = []
    row, path = TreeRow(), _Path()
    for question in questions:
        inputs = [input_tokens(requests[i]) for i in question]
        if len(row) + _new_tokens(path, inputs) > capacity:
            row, path = TreeRow(), _Path()
        enough = min(most, max(capacity, _best_length(len(requests[question[0]][0]), width)))
        for i, tokens in zip(question, inputs, strict=True):
            if len(row) + _new_tokens(path, [tokens]) > enough:
                row, path = TreeRow(), _Path()
            if not len(row):
                rows.append(row)
            _grow(row, path, tokens)
            row.scored[i] = path.nodes[len(requests[i][0]) - 1 :]
    return rows


def chains(requests: Requests) -> list[TreeRow]:
    """Lay requests out in one row for each distinct input; nothing else is shared."""
    rows: dict[tuple[int, ...], TreeRow] = {}
    for i, request in requests.items():
        tokens = input_tokens(request)
        row = rows.setdefault(tuple(tokens), TreeRow(tokens, list(range(len(tokens))), [(0, len(tokens), -1)]))
        row.scored[i] = list(range(len(request[0]) - 1, len(tokens)))
    return list(rows.values())


def batches(rows: Iterable[TreeRow], most: int) -> list[list[TreeRow]]:
    """Cut rows into batches, the longest rows first.

    Args:
        rows: The rows.
        most: The most tokens of a batch, padding counted; a batch has at least one row.

    Returns:
        Of all ways to cut the rows in the order of their lengths the one with the least padding, where a batch itself counts as
        BATCH_COST · most tokens.
    """
    ordered = sorted(rows, key=len, reverse=True)
    lengths = np.array([len(row) for row in ordered])
    cost = np.zeros(len(ordered) + 1)  # of the first n rows
    starts = np.zeros(len(ordered) + 1, dtype=int)  # of the last batch of the first n rows
    earliest = 0
    for end in range(1, len(ordered) + 1):
        while earliest < end - 1 and (end - earliest) * lengths[earliest] > most:
            earliest += 1
        first = np.arange(earliest, end)
        tokens = (end - first) * lengths[first]
        costs = cost[first] + tokens + BATCH_COST * most
        costs[:-1][tokens[:-1] > most] = np.inf
        starts[end] = first[costs.argmin()]
        cost[end] = costs.min()
    cut, end = [], len(ordered)
    while end:
        cut.append(ordered[starts[end] : end])
        end = starts[end]
    return cut[::-1]


@dataclass
class _Path:
    """The input that was laid out last, and its nodes. Neighbours in sorted order share the most with it."""

    tokens: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)


def _questions(requests: Requests) -> list[list[int]]:
    """Return the requests of each context, contexts and continuations in sorted order."""
    order = sorted(requests, key=requests.__getitem__)
    questions: list[list[int]] = []
    for i in order:
        if questions and requests[questions[-1][0]][0] == requests[i][0]:
            questions[-1].append(i)
        else:
            questions.append([i])
    return questions


def _typically_shared(questions: Sequence[Sequence[int]], requests: Requests) -> float:
    """Return the median number of tokens that neighbouring questions have in common at their beginning."""
    contexts = [requests[question[0]][0] for question in questions]
    return float(np.median([common_length(a, b) for a, b in pairwise(contexts)])) if len(contexts) > 1 else 0.0


def _best_length(shared: float, width: int) -> int:
    """Return the row length at which a token costs least, if all inputs of the row begin with the same T = `shared` tokens.

    A row of L tokens brings L − T new ones. Attention over L keys adds L / 6d to the cost of a token's linear layers of width
    d = `width`. The cost (1 + L/6d) · L / (L − T) is least at L = T + √(T (T + 6d)).
    """
    return round(shared + math.sqrt(shared * (shared + 6 * width)))


def _new_tokens(path: _Path, inputs: Iterable[list[int]]) -> int:
    """Return how many tokens the inputs of one question would add to a row whose last input is `path`."""
    before, added = path.tokens, 0
    for tokens in inputs:
        added += len(tokens) - common_length(before, tokens)
        before = tokens
    return added


def _grow(row: TreeRow, path: _Path, tokens: list[int]) -> None:
    """Add the tokens of an input that the last one does not share; `path` becomes this input."""
    shared, first = common_length(path.tokens, tokens), len(row)
    end = first + len(tokens) - shared
    if end > first:
        row.branches.append((first, end, path.nodes[shared - 1] if shared else -1))
        row.tokens += tokens[shared:]
        row.positions += range(shared, len(tokens))
    path.tokens, path.nodes = tokens, path.nodes[:shared] + list(range(first, end))


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common beginning of two sequences."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
