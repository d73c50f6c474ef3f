"""Continuations scored by a server: the numbers of the local engine, bounded, resumed, and never of two models."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.server_settings import ServerAddress, ServerSettings
from bitsure.models.locate import locate_tokenizer
from bitsure.scoring.journal import Journal
from bitsure.scoring.served import served_engine
from bitsure.scoring.served.served_engine import ServedEngine
from bitsure.scoring.served.server import contact
from tests.builders.loopback_server import VOCABULARY, logprobs_of, serve_completions
from tests.builders.requests import some_requests


@pytest.fixture
def engine_of(tiny_model, tmp_path):
    """A function that makes the engine of a running server."""
    store = Store(tmp_path / "store")
    source = locate_tokenizer(ModelSettings(path=str(tiny_model)), None, store)

    def make(served, **settings):
        server = contact(ServerAddress("model", served.url, None), ServerSettings(timeout=5, **settings), source, store)
        return ServedEngine(server, server.context, 10)

    return make


def test_log_probabilities_are_those_of_the_local_engine(tiny_model, engine_of):
    from transformers import AutoModelForCausalLM

    from bitsure.scoring.local.local_engine import LocalEngine

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    long = list(range(3, 253)) * 5  # which is cut, here to the same length
    requests = [*some_requests(20), (long, [7, 8])]
    with serve_completions(logprobs=logprobs_of(model)) as served:
        engine = engine_of(served)
        results = engine.score(requests)
    expected = LocalEngine(model, engine.max_length).score(requests)
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-4) and ours.greedy == theirs.greedy


def test_a_server_has_a_bounded_number_of_requests_at_one_time(engine_of):
    with serve_completions(delay=0.01) as served:
        engine = engine_of(served, concurrency=3, prompts=2)
        served.most_at_once, before = 0, len(served.requests)
        engine.score(some_requests(20))
    assert 1 < served.most_at_once <= 3
    assert all(len(body["prompt"]) <= 2 for body in served.requests[before + 1 : -1])  # but the reference, at the end


def test_what_was_scored_before_a_server_died_is_not_asked_again(engine_of, tmp_path, monkeypatch):
    monkeypatch.setattr(served_engine, "CHECKED_AFTER", 2)
    requests = some_requests(20)
    with serve_completions() as served:
        engine, journal = engine_of(served, concurrency=1, prompts=2), Journal(tmp_path / "journal")
        served.dies_after = len(served.requests) + 8
        with pytest.raises(UserError, match=r"answers no more, .*what was scored is kept"):
            engine.score(requests, journal=journal)
        assert len(journal) == 8  # four requests of two, and one of which nothing is known; the others were two references
        served.dies_after, before = None, len(served.scored)
        results = engine.score(requests, journal=Journal(tmp_path / "journal"))
        scored = served.scored[before:]
        assert len(scored) == len(requests) - 8 + 2 * 4  # and four references
        assert results == engine_of(served).score(requests)


def test_what_two_models_scored_under_one_name_is_forgotten(engine_of, tmp_path):
    with serve_completions() as served:
        engine, journal = engine_of(served, concurrency=1), Journal(tmp_path / "journal")
        served.changes_after = len(served.requests) + 3
        with pytest.raises(UserError, match="has become another model while it was asked"):
            engine.score(some_requests(20), journal=journal)
    assert not (tmp_path / "journal").exists()


def test_answers_of_a_model_that_came_between_are_not_resumed(engine_of, tmp_path):
    requests = some_requests(20)
    with serve_completions() as served:
        engine, expected = engine_of(served, concurrency=1, prompts=1), engine_of(served).score(requests)
        served.changes_after, served.dies_after = len(served.requests) + 3, len(served.requests) + 4
        with pytest.raises(UserError, match="answers no more"):
            engine.score(requests, journal=Journal(tmp_path / "journal"))
        served.changes_after = served.dies_after = None
        assert engine_of(served).score(requests, journal=Journal(tmp_path / "journal")) == expected


@pytest.mark.parametrize("reads", [{"context": 100}, {"cuts": 100}])
def test_a_context_shorter_than_said_is_refused_before_the_first_question(engine_of, reads):
    with serve_completions() as served:
        engine = engine_of(served)
        for name, value in reads.items():
            setattr(served, name, value)
        before = len(served.requests)
        with pytest.raises(UserError, match="context is said to have 1024 tokens, and it does not read a prompt of 210"):
            engine.score([([5] * 200, [6] * 10), ([5], [6])])
        assert len(served.requests) == before + 1


def test_a_log_probability_that_is_not_finite_is_refused(engine_of):
    with serve_completions() as served:
        engine = engine_of(served)
        served.logprobs = lambda ids: np.full((len(ids), VOCABULARY), np.nan)
        with pytest.raises(UserError, match="the log-probability nan: its model is broken"):
            engine.score([([5, 6], [7])])
