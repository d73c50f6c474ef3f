"""Requests to a server: repeated where it is busy, otherwise refused in words without what is secret."""

from __future__ import annotations

import socket

import pytest

from bitsure.base.errors import UserError
from bitsure.config.server_settings import ServerAddress
from bitsure.scoring.served import completions_client
from bitsure.scoring.served.completions_client import CompletionsClient
from tests.builders.loopback_server import serve_completions

ASKED = {"model": "org/tiny", "prompt": [[5, 6]], "max_tokens": 1}
SECRET = "sk-very-secret"


def ask(timeout=5.0, **settings):
    with serve_completions(**settings) as served:
        return CompletionsClient(ServerAddress("model", served.url, None), timeout).post("/completions", ASKED), served


def test_a_busy_server_is_asked_again():
    answer, served = ask(statuses=[429, 503])
    assert len(answer["choices"]) == 1 and len(served.requests) == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"statuses": [429] * 9}, r"\(HTTP 429\), after 3 tries: 'status 429'\. Run the same command again later"),
        ({"statuses": [400]}, r"refuses the request \(HTTP 400\): 'status 400'"),
        (
            {"statuses": [403]},
            r"refuses access \(HTTP 403\).* variable BITSURE_SERVER_KEY, which is not set",
        ),
        ({"statuses": [302]}, "sends requests elsewhere"),
        ({"body": b"<html><body>Welcome</body></html>"}, r"'text/html' and no JSON object: '<html>.*mostly ends in /v1"),
        ({"body": b"[]"}, "no JSON object"),
        ({"dies_after": 0}, r"answers no more, after 3 tries .*Run the same command again when it is back"),
        (
            {"delay": 0.3, "timeout": 0.05},
            r"no answer within server.timeout=0.05 seconds \(tries: 2\)\. .*with a larger server.timeout",
        ),
    ],
)
def test_what_is_wrong_is_named(wrong, message):
    with pytest.raises(UserError, match=message):
        ask(**wrong)


def test_a_busy_server_is_asked_again_for_its_models():
    with serve_completions(statuses=[429, 503]) as served:
        client = CompletionsClient(ServerAddress("model", served.url, None), 5)
        assert client.get("/models")["data"] and served.statuses == []


def test_no_server_is_refused_at_once():
    with serve_completions() as served:
        url = served.url
    with pytest.raises(UserError, match=r"model\.url=http://127.*: no server answers \(.*refused.*\). Start it"):
        CompletionsClient(ServerAddress("model", url, None), 5).get("/models")


def test_a_server_that_gives_no_models_is_not_told_of_what_was_scored():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"server\.timeout=0\.05 seconds \(tries: 1\)\. .*a larger server\.timeout\.$"):
            CompletionsClient(ServerAddress("model", url, None), 0.05).get("/models")
    with serve_completions(statuses=[429] * 9) as served, pytest.raises(UserError, match=r"again later\.$"):
        CompletionsClient(ServerAddress("model", served.url, None), 5).get("/models")


def test_the_key_comes_from_the_environment_and_stands_in_no_message(monkeypatch):
    monkeypatch.setenv("BITSURE_SERVER_KEY", SECRET)
    assert ask(key=SECRET)[0]["choices"]
    with pytest.raises(UserError, match="which is not accepted") as refused:
        ask(key="another")
    with pytest.raises(UserError, match="HTTP 400") as quoted:
        ask(statuses=[400], quotes=SECRET)
    assert SECRET not in f"{refused.value} {quoted.value}"


@pytest.mark.parametrize("key", ["sk-very\nsecret", "sk-schlüssel"])
def test_a_key_that_no_request_can_carry_is_refused_without_it(monkeypatch, key):
    monkeypatch.setenv("BITSURE_SERVER_KEY", key)
    with pytest.raises(UserError, match="BITSURE_SERVER_KEY: the server's key has characters") as refused:
        CompletionsClient(ServerAddress("model", "http://127.0.0.1:9/v1", None), 5)
    assert "sk-" not in str(refused.value)


def test_certificates_are_checked_however_https_is_written(monkeypatch):
    given = []
    monkeypatch.setattr("httpx.Client", lambda **settings: given.append(settings["verify"]))
    for url in ("HTTPS://host/v1", "https://host/v1"):
        CompletionsClient(ServerAddress("model", url, None), 5)
    assert given == [True, True]


def test_an_answer_without_end_is_not_read(monkeypatch):
    monkeypatch.setattr(completions_client, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"the answer has more than 1000 bytes\. Ask for less"):
        ask(body=b" " * 2000)


def test_a_client_that_is_stopped_tries_no_request_again(monkeypatch):
    monkeypatch.setattr(completions_client, "WAITS", (60, 60))
    with serve_completions(statuses=[429] * 9) as served:
        client = CompletionsClient(ServerAddress("model", served.url, None), 5)
        client.stopped.set()
        with pytest.raises(UserError, match="HTTP 429"):
            client.post("/completions", ASKED)
    assert len(served.requests) == 1
