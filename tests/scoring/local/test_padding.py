"""A question's score depends on that question alone: not on the others of its batch, nor on what was scored before."""

from __future__ import annotations

import logging

import pytest

from benchmarks.families import SIZES
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local import forward
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.local.padding import rotary_types
from tests.builders.families import FALCON, GROUPED, build
from tests.builders.marks import needs_transformers_5
from tests.builders.requests import branching_questions

LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 8,
    "long_factor": [1.0 + 2 * i for i in range(8)],
    "rope_theta": 1e4,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
BY_LENGTH = {
    "phi3, longrope": (
        "phi3",
        GROUPED | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 24, "pad_token_id": 0},
    ),
    "llama, longrope": ("llama", GROUPED | {"rope_parameters": LONGROPE | {"original_max_position_embeddings": 24}}),
    "llama, dynamic": ("llama", GROUPED | {"rope_parameters": DYNAMIC, "max_position_embeddings": 24}),
    "falcon, dynamic": ("falcon", FALCON | {"alibi": False, "rope_parameters": DYNAMIC, "max_position_embeddings": 24}),
}
QUICK = ("opt", "llama", "gemma2")  # of the families whose smallest and largest batches are compared; the others are slow tests


def requests_of_lengths(*lengths: int) -> list:
    """For each length two choices after a context of that many tokens; a context does not depend on the other lengths."""
    return [([3 + (7 * n + i) % 240 for i in range(n)], [5 + n, *[9] * choice]) for n in lengths for choice in range(2)]


def logprobs(model, requests, most: int = 2048, share: bool = True) -> list[float]:
    engine, journal = LocalEngine(model, 256, share), Journal()
    journal.begin(Limits(most, most))
    return [scored.logprob for scored in engine.score(requests, journal=journal)]


@needs_transformers_5
@pytest.mark.parametrize("name", BY_LENGTH)
def test_rotary_factors_are_those_of_the_question_alone(name):
    family, settings = BY_LENGTH[name]
    model = build(family, **settings)
    assert len(rotary_types(model.config)) == 1
    lengths = (8, 20, 23, 24, 25, 26, 60, 90)
    together = logprobs(model, requests_of_lengths(*lengths))
    for place, length in enumerate(lengths):
        alone = logprobs(build(family, **settings), requests_of_lengths(length))
        assert together[2 * place : 2 * place + 2] == pytest.approx(alone, abs=1e-4)


@needs_transformers_5
def test_rotary_factors_do_not_depend_on_what_was_scored_before():
    model = build("llama", **BY_LENGTH["llama, dynamic"][1])
    expected = logprobs(model, requests_of_lengths(30))
    logprobs(model, requests_of_lengths(200))
    assert logprobs(model, requests_of_lengths(30)) == expected


@pytest.mark.parametrize("what", ["length", "others"])
def test_a_model_that_padding_or_other_inputs_change_scores_each_input_by_itself(what, caplog):
    model = build("llama", **GROUPED)

    def change(embedding, inputs, output):
        rows, width = inputs[0].shape
        return output * (1 + 0.01 * (width if what == "length" else rows))

    model.get_input_embeddings().register_forward_hook(change)
    lengths = (8, 20, 60)
    with caplog.at_level(logging.WARNING):
        together = logprobs(model, requests_of_lengths(*lengths), share=False)
    alone = [value for length in lengths for value in logprobs(model, requests_of_lengths(length)[:1], share=False)]
    assert together[::2] == pytest.approx(alone, abs=1e-4)
    assert "each input is run by itself" in caplog.text


def test_the_check_of_padding_runs_few_inputs(model, monkeypatch):
    batches, real = [], forward.score_plain
    monkeypatch.setattr(forward, "score_plain", lambda m, batch, asked: batches.append(len(batch)) or real(m, batch, asked))
    requests = requests_of_lengths(*range(8, 90))
    engine = LocalEngine(model, 256, share=False)
    engine.score(requests)
    first = sum(batches)
    engine.score(requests)
    assert sum(batches) - first == len(requests)
    assert first <= 1.2 * len(requests) + 8


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SIZES])
def test_the_smallest_and_the_largest_batch_give_the_same_numbers(name, share):
    model, requests = build(name.split(",")[0], **SIZES[name]), list(branching_questions().values())
    one_by_one, together = (logprobs(model, requests, most, share) for most in (1, 2**14))
    assert all(abs(a - b) <= 1e-4 + 1e-6 * abs(a) for a, b in zip(one_by_one, together, strict=True))
