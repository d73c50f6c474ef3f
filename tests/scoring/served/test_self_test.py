"""What a server does wrong is refused by its name before the first question."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.server_settings import ServerAddress
from bitsure.scoring.served.completions_client import CompletionsClient
from bitsure.scoring.served.self_test import SelfTest
from tests.builders.loopback_server import serve_completions

BOTH, ECHO = ("prompt_logprobs", "echo"), ("echo",)


def result_of(tokenizer, tolerance=0.2, **settings):
    with serve_completions(**settings) as served:
        client = CompletionsClient(ServerAddress("model", served.url, None), 5)
        return SelfTest(client, "org/tiny", tokenizer, tolerance).run(), served


@pytest.mark.parametrize("speaks", [BOTH, ECHO])
def test_a_good_server_passes_and_its_errors_are_measured(tokenizer, speaks):
    result, served = result_of(tokenizer, speaks=speaks)
    assert result.nondeterminism == 0 and result.inconsistency == pytest.approx(0, abs=1e-9)
    assert len(result.reference) > 60
    assert all(body["prompt"] and isinstance(body["prompt"][0][0], int) for body in served.requests)  # ids, and no text


def test_noise_within_the_tolerance_is_measured(tokenizer):
    result, _ = result_of(tokenizer, noise=0.01)
    assert 0.01 < result.nondeterminism < 0.1 and 0 < result.inconsistency < 0.1


@pytest.mark.parametrize(
    ("speaks", "wrong", "message"),
    [
        (ECHO, {"shift": 1}, "shifted: a token's stands at the one before"),
        (ECHO, {"most_likely_only": True}, "the most likely token's log-probability in place of the one that was sent"),
        (ECHO, {"words": str.upper}, "has another tokenizer: 47 of 63 tokens are other texts there"),
        (BOTH, {"shift": 1}, "shifted: a token's stands at the one before"),
        (ECHO, {"top_k": 5}, r"63 of 63 tokens of a prompt no log-probability.*\(top k\)"),
        (BOTH, {"floor": -5.0}, r"unlikely tokens the same log-probability -5: .*\(top k\)"),
        (ECHO, {"decimals": 2}, "rounds log-probabilities to 2 decimals"),
        (BOTH, {"bfloat16": True}, "rounds log-probabilities to bfloat16"),
        (ECHO, {"adds": (2,)}, "reads 65 tokens where 64 were sent: it puts a token of its own, such as BOS"),
        (
            BOTH,
            {"adds": (2,), "hides_added": True},
            "the first token of a prompt a log-probability, so that something",
        ),
        (ECHO, {"drops": 1}, "reads 63 tokens where 64 were sent: it leaves out a token, such as the BOS"),
        (BOTH, {"drops": 9}, "reads 55 tokens where 64 were sent: it cuts the prompt, or has another tokenizer"),
        (BOTH, {"words": str.upper}, "has another tokenizer: 47 of 63 tokens are other texts there, such as 'HE' where 'he'"),
        (BOTH, {"most_likely_only": True}, "the most likely token's log-probability in place of the one that was sent"),
        (ECHO, {"noise": 0.5}, r"two equal requests differ by [\d.]+ nats, and server.tolerance=0.2 is accepted"),
        (BOTH, {"ranks": False}, "a token of a prompt has no rank: whether it is the most likely one is not known"),
        (ECHO, {"tops": False}, r"a token of a prompt has no most likely one \(top_logprobs\) beside it"),
        (BOTH, {"calls_first": True}, "says of each of many unlikely tokens that it is the most likely one"),
        (BOTH, {"calls_first": False}, "says of no token that it writes itself that it is the most likely one"),
        (BOTH, {"answers_as": "org/other"}, "the model org/tiny was asked, and 'org/other' answers"),
    ],
)
def test_what_is_wrong_is_named(tokenizer, speaks, wrong, message):
    with pytest.raises(UserError, match=message) as error:
        result_of(tokenizer, speaks=speaks, **wrong)
    assert str(error.value).startswith("model.url=http://127.0.0.1:")


def test_a_server_without_log_probabilities_of_prompts_is_refused(tokenizer):
    with pytest.raises(UserError, match="no log-probabilities of the prompt: it ignores prompt_logprobs and echo"):
        result_of(tokenizer, speaks=())


def test_a_token_that_is_written_otherwise_than_it_is_read_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"in a prompt [\d.]+ nats away from the same token's as it writes it"):
        result_of(tokenizer, read_as=0.5)
