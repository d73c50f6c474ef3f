"""Prefixes are shared where that changes no number; a few questions of every run check it."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from bitsure.scoring.local import forward, pass_choice, rows
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.trial import why_no_trees
from bitsure.scoring.requests import Scored
from tests.builders.requests import some_requests


def test_the_log_says_whether_prefixes_are_shared(model, caplog):
    with caplog.at_level(logging.INFO):
        LocalEngine(model, 128).score(some_requests())
        LocalEngine(model, 128, share=False).score(some_requests())
    messages = [record.getMessage() for record in caplog.records if "prefixes" in record.getMessage()]
    assert messages == ["prefixes are shared", "prefixes are not shared: scoring.share=false"]


def test_sharing_that_changes_numbers_is_left_out(model, monkeypatch, caplog):
    real = forward.score_trees

    def wrong(*args):
        return {i: Scored([p - 1e-3 for p in one.token_logprobs], one.greedy) for i, one in real(*args).items()}

    monkeypatch.setattr(forward, "score_trees", wrong)
    with caplog.at_level(logging.INFO):
        results = LocalEngine(model, 128).score(some_requests())
    for mine, plain in zip(results, LocalEngine(model, 128, share=False).score(some_requests()), strict=True):
        assert mine.token_logprobs == pytest.approx(plain.token_logprobs, abs=1e-5)
    assert "so that this way is left out" in caplog.text
    assert "prefixes are shared by copies of the model's state after them" in caplog.text


def test_sharing_that_fails_on_long_inputs_is_left_out(model, monkeypatch, caplog):
    assert why_no_trees(model, 20) is None

    def failing(*given):
        raise IndexError("no such position")

    monkeypatch.setattr(forward, "score_trees", failing)
    engine = LocalEngine(model, 128)
    engine.budget.probed = True
    with caplog.at_level(logging.INFO):
        results = engine.score(some_requests(10))
    assert (
        "the model's code fails on these inputs" in caplog.text
        and "IndexError: no such position" in caplog.text
        and len(results) == 14
    )


@pytest.mark.parametrize("length", [50, 180, 400])
def test_the_check_has_branches_and_two_questions_and_stays_small(model, monkeypatch, length):
    seen, real = [], forward.score_plain
    monkeypatch.setattr(forward, "score_plain", lambda m, batch, asked: seen.append(asked) or real(m, batch, asked))
    scorer = LocalEngine(model, 1024)
    requests = [([q] * length, [c, c]) for q in range(3, 20) for c in range(3)]
    scorer.score(requests)
    scorer.score(requests)
    asked = {i: one for results in seen for i, one in results.items()}.values()
    contexts = [tuple(context) for context, _ in asked]
    assert len(set(contexts)) == 2 and len(contexts) > len(set(contexts))
    tokens = sum(len(context) + len(continuation) - 1 for context, continuation in asked)
    assert tokens <= max(pass_choice.CHECKED_TOKENS, 3 * (length + 1))


def test_the_check_sees_choices_that_see_each_other(model, monkeypatch, caplog):
    assert why_no_trees(model, 20) is None
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(rows.TreeRow, "ends", lambda row: np.full(len(row), len(row)))
    for length in (25, 180, 250):
        caplog.clear()
        LocalEngine(model, 1024).score([([q] * length, [c, c + 1]) for q in range(3, 20) for c in range(3)])
        assert "so that this way is left out" in caplog.text


def test_longer_inputs_are_checked_anew(model, monkeypatch):
    scorer, calls = LocalEngine(model, 1024), []
    monkeypatch.setattr(scorer._choice, "_change", lambda *asked: calls.append(asked))
    for length in (30, 20, 200, 200):
        scorer.score([([q] * length, [c, c]) for q in range(3, 9) for c in range(3)])
    assert len(calls) == 2
