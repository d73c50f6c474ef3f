from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsure.scoring.local import rows as layout
from bitsure.scoring.local.rows import BATCH_COST, SMALLEST_ROW, TreeRow, batches
from bitsure.scoring.requests import input_tokens

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=12)
requests = st.lists(st.tuples(tokens, tokens), min_size=1, max_size=30)
even = st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=4, max_size=4), tokens), min_size=1, max_size=30)


def trees(asked, width, most=10_000):
    return layout.trees(dict(enumerate(asked)), width, most)


def chains(asked):
    return layout.chains(dict(enumerate(asked)))


def visible(row):
    at = np.arange(len(row))
    return (at <= at[:, None]) & (row.ends() > at[:, None])


def paths(row):
    """Of every node the tokens on its way from the root, read off the mask and the positions."""
    sees = visible(row)
    for node in range(len(row)):
        ancestors = np.flatnonzero(sees[node])
        assert [row.positions[a] for a in ancestors] == list(range(len(ancestors)))  # one ancestor a depth, in order
        yield [row.tokens[a] for a in ancestors]


def check(rows, asked):
    scored = {}
    for row in rows:
        inputs = list(paths(row))
        for number, nodes in row.scored.items():
            context, continuation = asked[number]
            assert len(nodes) == len(continuation)
            for i, node in enumerate(nodes):  # the node that predicts a token has seen exactly what stands before it
                assert inputs[node] == context + continuation[:i]
            scored[number] = True
    assert len(scored) == len(asked)


@given(requests)
def test_every_token_is_predicted_by_what_stands_before_it(asked):
    check(trees(asked, 8), asked)
    check(chains(asked), asked)


@given(even)  # where one context goes on as another's choice does, sorting by contexts may run a prefix twice
def test_within_a_tree_no_prefix_is_run_twice(asked):
    for row in trees(asked, 8):
        seen = [tuple(path) for path in paths(row)]
        assert len(set(seen)) == len(seen)


def test_a_question_is_one_branch_with_a_twig_a_choice():
    [row] = trees([([1, 2, 3], [4, 5]), ([1, 2, 3], [6, 7])], 64)
    assert row.tokens == [1, 2, 3, 4, 6] and row.positions == [0, 1, 2, 3, 3]
    assert row.branches == [(0, 4, -1), (4, 5, 2)]
    assert row.scored == {0: [2, 3], 1: [2, 4]}
    assert visible(row).astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]


def test_choices_of_one_token_add_nothing():
    [row] = trees([([1, 2, 3], [token]) for token in range(10)], 64)
    assert len(row) == 3
    assert len(chains([([1, 2, 3], [token]) for token in range(10)])) == 1


def test_examples_that_all_questions_share_are_run_once_a_row():
    examples = list(range(10, 260))
    asked = [(examples + [1000 + q] * 20, [c, c]) for q in range(100) for c in range(4)]
    rows = trees(asked, 768)
    new = sum(20 + 4 for _ in range(100))
    assert sum(map(len, rows)) == len(rows) * 250 + new
    assert len(rows) <= 3  # some 1,350 tokens each
    assert sum(len(input_tokens(one)) for one in asked) > 25 * sum(map(len, rows)) / 3


def test_questions_that_share_little_get_short_rows_and_stay_whole():
    rng = np.random.default_rng(0)
    contexts = rng.integers(0, 1000, (50, 60)).tolist()
    asked = [(contexts[q], [c, 1]) for q in range(50) for c in range(4)]
    rows = trees(asked, 64)
    assert max(map(len, rows)) <= SMALLEST_ROW and min(map(len, rows[:-1])) > SMALLEST_ROW - 65
    for row in rows:
        questions = {number // 4 for number in row.scored}
        assert sorted(row.scored) == sorted(q * 4 + c for q in questions for c in range(4))


def test_no_row_is_longer_than_allowed_whatever_the_questions():
    sentences = [([1], np.random.default_rng(i).integers(2, 1000, 12).tolist()) for i in range(500)]
    rows = trees(sentences, 64, most=300)
    assert max(map(len, rows)) <= 300
    check(rows, sentences)
    [alone] = trees([([1] * 400, [2, 3])], 64, most=300)
    assert len(alone) == 401 and not alone.splits


def test_the_choices_of_a_long_question_share_its_context():
    [row] = trees([(list(range(3, 253)), [c, 1, 2]) for c in range(4)], 64)
    assert len(row) == 250 + 4 * 2


@given(requests, st.integers(1, 40))
def test_small_limits_lose_nothing(asked, most):
    check(trees(asked, 8, most), asked)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(8, 64))
def test_batches_are_cut_where_it_costs_least(lengths, most):
    rows = [TreeRow([0] * length) for length in lengths]
    cut = batches(rows, most)
    assert [len(row) for batch in cut for row in batch] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * len(batch[0]) <= most for batch in cut)

    def cost(parts):
        return sum(len(part) * part[0] + BATCH_COST * most for part in parts)

    ordered = sorted(lengths, reverse=True)
    ways = []
    for ends in itertools.product((False, True), repeat=len(ordered) - 1):
        borders = [0, *(i + 1 for i, end in enumerate(ends) if end), len(ordered)]
        parts = [ordered[a:b] for a, b in itertools.pairwise(borders)]
        if all(len(part) == 1 or len(part) * part[0] <= most for part in parts):
            ways.append(cost(parts))
    assert cost([[len(row) for row in batch] for batch in cut]) == pytest.approx(min(ways))
