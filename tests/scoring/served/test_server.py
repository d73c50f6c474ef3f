"""Which model of a server is scored, and what identifies it."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.server_settings import ServerAddress, ServerSettings
from bitsure.models.locate import locate_tokenizer
from bitsure.scoring.served.server import contact
from tests.builders.loopback_server import hashed_logprobs, serve_completions


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
        ({"names": ("a", "b")}, None, "has the models a, b: which one is meant.* Give model.served_name"),
        ({"names": ("a", "b")}, "c", "has the models a, b: model.served_name=c is not among them"),
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
