"""On a GPU texts are waited for once a batch, and answers once a token: every tensor lives where it should."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.scoring.generation.generation_request import GenerationRequest
from bitsure.scoring.generation.text_generator import TextGenerator
from bitsure.scoring.texts import text_pass
from bitsure.scoring.texts.text_pass import TextModel
from bitsure.scoring.texts.tokenized_text import TextWindow
from tests.builders.fake_gpu import FakeGpu, fake_gpu
from tests.builders.families import FAMILIES, build
from tests.builders.tokenizers import byte_tokenizer

LIBRARIES = ("masking_utils.py", "cache_utils.py")  # transformers' own waits


def waits(gpu: FakeGpu) -> list[int]:
    return [times for wait, times in gpu.waits.items() if not any(file in wait for file in LIBRARIES)]


def test_a_batch_of_windows_is_waited_for_once_however_many_parts_its_logits_have(monkeypatch):
    monkeypatch.setitem(text_pass.LOGITS, "cuda", 300 * 50)
    model, nothing = build("opt", **FAMILIES["opt"]), np.zeros(63, dtype=np.int64)
    tokens = np.random.default_rng(0).integers(4, 300, (4, 64))
    windows = [TextWindow(row, 1, nothing, nothing, nothing) for row in tokens]
    of_cpu = TextModel(model)
    expected = of_cpu.score(windows, of_cpu.states(windows))
    with fake_gpu() as gpu:
        text_model = TextModel(model.to("cuda"))
        gpu.reset()
        scores = text_model.score(windows, text_model.states(windows), text_model)
    assert waits(gpu) == [1]
    np.testing.assert_allclose(scores.logprob, expected.logprob, atol=1e-5)
    assert (scores.top_token == expected.top_token).all() and (scores.kl_divergence == 0).all()


@pytest.mark.parametrize("settings", [{}, {"do_sample": True}], ids=["greedy", "drawn"])
def test_a_token_of_all_answers_is_waited_for_once_and_once_more_where_it_is_drawn(settings):
    model, tokenizer = build("opt", **FAMILIES["opt"]), byte_tokenizer()
    prompts = np.random.default_rng(0).integers(5, 290, (4, 12)).tolist()
    requests = [GenerationRequest(prompt[i:], 5, [], settings, i) for i, prompt in enumerate(prompts)]
    expected = TextGenerator(model, tokenizer).generate(requests)
    with fake_gpu() as gpu:
        generator = TextGenerator(model.to("cuda"), tokenizer)
        gpu.reset()
        answers = generator.generate(requests)
    assert waits(gpu) == [5] * (1 + bool(settings))
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]
    assert answers[0].token_logprobs == pytest.approx(expected[0].token_logprobs, abs=1e-5)
