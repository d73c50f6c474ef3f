"""Which model of a server is scored, and what identifies it."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.server_settings import ServerAddress, ServerSettings
from bitsure.models.locate import locate_tokenizer
from bitsure.scoring.served.server import contact
from bitsure.scoring.served_setup import ServedSetup
from tests.builders.loopback_server import VOCABULARY, hashed_logprobs, serve_completions


@pytest.fixture
def reach(tiny_model, tmp_path):
    """A function that contacts a server as a run does."""
    store = Store(tmp_path / "store")
    source = locate_tokenizer(ModelSettings(path=str(tiny_model)), None, store)

    def reach(url, served_name=None):
        return contact(ServerAddress("model", url, served_name), ServerSettings(timeout=5), source, store)

    return reach


def test_the_only_model_is_taken_and_described(reach):
    with serve_completions() as served:
        server = reach(served.url)
    origin = server.origin
    assert (origin.name, origin.url, origin.asked_by, origin.context) == ("org/tiny", served.url, "prompt_logprobs", 1024)
    assert origin.stated["max_model_len"] == 1024 and origin.nondeterminism == 0
    assert server.key == {**server.key, "url": served.url, "name": "org/tiny"}


@pytest.mark.parametrize(
    ("served", "wanted", "message"),
    [
        ({"names": ("a", "b")}, None, "has the models 'a, b': which one is meant.* Give model.served_name"),
        ({"names": ("a", "b")}, "c", "has the models 'a, b': model.served_name=c is not among them"),
        ({"lists_models": False}, None, "has nothing at /v1/models"),
    ],
)
def test_a_model_that_is_not_there_is_refused(reach, served, wanted, message):
    with serve_completions(**served) as running, pytest.raises(UserError, match=message):
        reach(running.url, wanted)


def test_a_server_without_a_list_is_asked_for_the_given_name(reach):
    with serve_completions(lists_models=False) as served:
        assert reach(served.url, "org/tiny").origin.name == "org/tiny"


def test_an_address_without_v1_is_completed_in_the_message(reach):
    with serve_completions() as served, pytest.raises(UserError, match=f"lacks its end. Give model.url={served.url}"):
        reach(served.url.removesuffix("/v1"))


def test_another_model_under_the_same_name_has_other_records(reach, caplog):
    with serve_completions() as served:
        first, again = reach(served.url), reach(served.url)
        served.logprobs = lambda ids: hashed_logprobs([token + 1 for token in ids])
        other = reach(served.url)
        assert "is another model now than when it was asked before" in caplog.text
        served.logprobs = hashed_logprobs
        back = reach(served.url)
    assert first == again == back and first != other and first.key["reference"] != other.key["reference"]


def test_a_model_that_moved_by_little_more_than_a_noisy_server_is_another(reach):
    rng = np.random.default_rng(0)
    noise, shift = rng.normal(0, 0.01, 10_000), np.zeros(VOCABULARY)
    places = iter(range(10_000))

    def noisy(ids):
        return hashed_logprobs(ids) + shift + noise[[next(places) % len(noise) for _ in ids]][:, None]

    with serve_completions(logprobs=noisy) as served:
        first, again = reach(served.url), reach(served.url)
        assert again.serves_another() is None
        shift += 0.03  # nats: less than 4 times the largest difference between its equal requests
        assert again.serves_another() > 0.02
        other = reach(served.url)
    assert first == again and first != other
    assert 4 * first.origin.nondeterminism > 0.03


def test_records_of_another_context_are_not_taken(reach):
    with serve_completions(context=512) as served:
        short = ServedSetup(reach(served.url)).key(quantized=False)
        served.context = 1024
        assert short != ServedSetup(reach(served.url)).key(quantized=False)


def test_what_a_server_states_of_a_model_is_cut(reach):
    with serve_completions(stated={"a" * 999: "b" * 999, **{str(i): i for i in range(99)}}) as served:
        stated = reach(served.url).origin.stated
    assert len(stated) == 30 and max(map(len, stated)) == 300 and max(len(str(value)) for value in stated.values()) == 300
