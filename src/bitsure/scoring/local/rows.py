"""Requests laid out so that every distinct prefix of tokens is run once.

The inputs of some requests, put one over the other, make a tree: what they share at their beginning (few-shot examples,
a context) is one branch, and every continuation is a branch of its own. A row is such a tree, its tokens in
one sequence. A token sees its ancestors alone and stands at the position of its depth, so that it gets the hidden state that it
has in its own input. Plain numpy, no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

Request = tuple[list[int], list[int]]  # context and continuation, token ids
SMALLEST_ROW = 96  # tokens; trees of a few questions fill it
BATCH = 1 / 16  # of the most tokens a batch may have: how much padding one batch fewer is worth


@dataclass
class Row:
    """A tree of tokens, parents before children."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # depth; the root is 0
    branches: list[tuple[int, int, int]] = field(default_factory=list)  # (first, one past last, parent of first or −1)
    scored: dict[int, list[int]] = field(default_factory=dict)  # request → the tokens that predict its continuation

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def splits(self) -> bool:
        """Whether it can be cut into shorter rows."""
        return len(self.branches) > 1

    def sees(self) -> np.ndarray:
        """(n, n) of bool: whether token i is, or comes after, token j."""
        mask = np.zeros((len(self), len(self)), dtype=bool)
        for first, end, parent in self.branches:
            if parent >= 0:
                mask[first:end] = mask[parent]
            mask[first:end, first:end] = np.tri(end - first, dtype=bool)
        return mask


def read_by_the_model(request: Request) -> list[int]:
    """The tokens that a request puts into the model: all but the continuation's last."""
    context, continuation = request
    return context + continuation[:-1]


def trees(requests: Mapping[int, Request], width: int, most: int) -> list[Row]:
    """Lay numbered requests out in rows of the best length for a model of that width.

    A question's choices stay together where they fit. No row has more than `most` tokens, unless one request alone has.
    """
    questions = _questions(requests)
    capacity = min(most, max(SMALLEST_ROW, _best_length(_typically_shared(questions, requests), width)))
    rows: list[Row] = []
    row, path = Row(), _Path()
    for question in questions:
        inputs = [read_by_the_model(requests[i]) for i in question]
        if len(row) + _new_tokens(path, inputs) > capacity:
            row, path = Row(), _Path()
        enough = min(most, max(capacity, _best_length(len(requests[question[0]][0]), width)))
        for i, tokens in zip(question, inputs, strict=True):
            if len(row) + _new_tokens(path, [tokens]) > enough:
                row, path = Row(), _Path()
            if not len(row):
                rows.append(row)
            _grow(row, path, tokens)
            row.scored[i] = path.nodes[len(requests[i][0]) - 1 :]
    return rows


def chains(requests: Mapping[int, Request]) -> list[Row]:
    """A row for each distinct input: nothing else is shared."""
    rows: dict[tuple[int, ...], Row] = {}
    for i, request in requests.items():
        tokens = read_by_the_model(request)
        row = rows.setdefault(tuple(tokens), Row(tokens, list(range(len(tokens))), [(0, len(tokens), -1)]))
        row.scored[i] = list(range(len(request[0]) - 1, len(tokens)))
    return list(rows.values())


def batches(rows: Iterable[Row], most: int) -> list[list[Row]]:
    """Rows in batches of at most `most` tokens, padding counted, but of one row at the least; the longest rows first.

    Of all ways to cut the rows in order of their lengths, the one with the least padding, where a batch itself counts as
    BATCH · most tokens.
    """
    ordered = sorted(rows, key=len, reverse=True)
    lengths = np.array([len(row) for row in ordered])
    cost, begins = np.zeros(len(ordered) + 1), np.zeros(len(ordered) + 1, dtype=int)  # of the first n rows; of the last batch
    fewest = 0
    for end in range(1, len(ordered) + 1):
        while fewest < end - 1 and (end - fewest) * lengths[fewest] > most:
            fewest += 1
        first = np.arange(fewest, end)
        tokens = (end - first) * lengths[first]
        found = cost[first] + tokens + BATCH * most
        found[:-1][tokens[:-1] > most] = np.inf
        begins[end] = first[found.argmin()]
        cost[end] = found.min()
    cut, end = [], len(ordered)
    while end:
        cut.append(ordered[begins[end] : end])
        end = begins[end]
    return cut[::-1]


@dataclass
class _Path:
    """The branch that was laid out last: neighbours in sorted order share the most with it."""

    tokens: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)


def _questions(requests: Mapping[int, Request]) -> list[list[int]]:
    """Requests by equal context, contexts and their continuations in sorted order."""
    order = sorted(requests, key=requests.__getitem__)
    questions: list[list[int]] = []
    for i in order:
        if questions and requests[questions[-1][0]][0] == requests[i][0]:
            questions[-1].append(i)
        else:
            questions.append([i])
    return questions


def _typically_shared(questions: Sequence[Sequence[int]], requests: Mapping[int, Request]) -> float:
    """How many tokens neighbouring questions begin with alike, the median."""
    contexts = [requests[question[0]][0] for question in questions]
    return float(np.median([_in_common(a, b) for a, b in pairwise(contexts)])) if len(contexts) > 1 else 0.0


def _best_length(shared: float, width: int) -> int:
    """The row length at which a token costs the least, where all in the row begins with the same T = `shared` tokens.

    A row of L tokens brings L − T new ones. Attention over L keys adds L / 6d to the cost of a token's linear layers of width
    d. The cost (1 + L/6d) · L / (L − T) is least at L = T + √(T (T + 6d)).
    """
    return round(shared + math.sqrt(shared * (shared + 6 * width)))


def _new_tokens(path: _Path, inputs: Iterable[list[int]]) -> int:
    """How many tokens the inputs of one question would add after the branch `path`."""
    before, added = path.tokens, 0
    for tokens in inputs:
        added += len(tokens) - _in_common(before, tokens)
        before = tokens
    return added


def _grow(row: Row, path: _Path, tokens: list[int]) -> None:
    """Add what of `tokens` the last branch does not have; `path` becomes their branch."""
    shared, first = _in_common(path.tokens, tokens), len(row)
    end = first + len(tokens) - shared
    if end > first:
        row.branches.append((first, end, path.nodes[shared - 1] if shared else -1))
        row.tokens += tokens[shared:]
        row.positions += range(shared, len(tokens))
    path.tokens, path.nodes = tokens, path.nodes[:shared] + list(range(first, end))


def _in_common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
