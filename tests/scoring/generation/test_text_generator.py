"""Answers are those of transformers' own generate, token for token, in every family and however they are batched."""

from __future__ import annotations

import math

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.number_formats import KeysValues
from bitsure.quantize.inference import keys_values
from bitsure.quantize.inference.hooks import InferenceRounding, attach
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.targets import find_blocks
from bitsure.scoring.generation import text_generator
from bitsure.scoring.generation.generation_request import Generation, GenerationRequest
from bitsure.scoring.generation.text_generator import TextGenerator
from bitsure.scoring.journal import Limits, ResultJournal
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.families import FALCON, FAMILIES, build
from tests.builders.tokenizers import byte_tokenizer

OTHERS = {"falcon": FALCON | {"alibi": True}, "gemma2": FAMILIES["gemma"] | {"sliding_window": 16}}
NEW = 8  # tokens of an answer
BEGINNING = list(range(3, 40))  # of most prompts
PROMPTS = [[*BEGINNING, *range(100, 100 + 3 * k)] for k in range(1, 6)] + [[5, 9], list(range(200, 212))]


def asked(prompts=PROMPTS, **settings) -> list[GenerationRequest]:
    return [GenerationRequest(prompt, NEW, [], settings, seed) for seed, prompt in enumerate(prompts)]


def generator(model, **settings) -> TextGenerator:
    return TextGenerator(model, byte_tokenizer(), **settings)


def journal_at(path) -> ResultJournal[Generation]:
    return ResultJournal(path, Generation)


@torch.inference_mode()
def expected(model, request: GenerationRequest) -> Generation:
    """What transformers writes alone, and the log-probabilities of a pass over prompt and answer."""
    prompt = torch.tensor([request.prompt])
    written = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, **request.settings)[0]
    tokens = written[len(request.prompt) :].tolist()
    logprobs = model(written[None, :-1]).logits[0, len(request.prompt) - 1 :].double().log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    own = logprobs.gather(-1, torch.tensor(tokens)[:, None])[:, 0]
    return Generation(tokens, own.tolist(), entropies.tolist(), *(top.tolist() for top in logprobs.topk(5)[::-1]), "length")


def check_same(ours: Generation, theirs: Generation, ended: str = "length") -> None:
    assert ours.tokens == theirs.tokens and ours.ended == ended
    assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=2e-4)
    assert ours.entropies == pytest.approx(theirs.entropies, abs=2e-4)
    assert [top[0] for top in ours.top_tokens] == [top[0] for top in theirs.top_tokens]
    for ours_at, theirs_at in zip(ours.top_logprobs, theirs.top_logprobs, strict=True):
        assert ours_at == pytest.approx(theirs_at, abs=2e-4)


@pytest.mark.parametrize("family", [*FAMILIES, *(f"{name}, one by one" for name in OTHERS)])
def test_every_family_writes_what_transformers_writes(family):
    name, _, alone = family.partition(",")
    model = build(name, **(OTHERS if alone else FAMILIES)[name])
    model.generation_config.eos_token_id = None
    requests = asked() if not alone else asked(PROMPTS[3:5])
    for ours, request in zip(generator(model).generate(requests), requests, strict=True):
        check_same(ours, expected(model, request))


@pytest.fixture(scope="module")
def llama():
    model = build("llama", **FAMILIES["llama"])
    model.generation_config.eos_token_id = None
    return model


@pytest.mark.parametrize("share", [True, False])
def test_what_prompts_have_in_common_is_read_once(llama, share):
    writer = generator(llama, share=share)
    answers = writer.generate(asked())
    for ours, request in zip(answers, asked(), strict=True):
        check_same(ours, expected(llama, request))
    own = sum(len(prompt) for prompt in PROMPTS) + len(PROMPTS) * (NEW - 1)
    assert writer.tokens < own if share else writer.tokens >= own


def test_prompts_are_read_in_parts_that_fit(llama, monkeypatch):
    monkeypatch.setitem(text_generator.READ_AT_ONCE, "cpu", 9)
    for ours, request in zip(generator(llama).generate(asked()), asked(), strict=True):
        check_same(ours, expected(llama, request))


def test_a_model_that_keeps_nothing_of_a_token_has_the_largest_batches():
    model = build("mamba", vocab_size=300, hidden_size=64, num_hidden_layers=2)
    assert generator(model).limits().shared == text_generator.MOST_CACHED


def test_an_answer_ends_with_the_models_end_token(llama):
    first = generator(llama).generate(asked())[0].tokens
    llama.generation_config.eos_token_id = [first[2], 299]
    try:
        ended = generator(llama).generate(asked())[0]
    finally:
        llama.generation_config.eos_token_id = None
    assert (ended.tokens, ended.ended) == (first[: first.index(first[2]) + 1], "end token")


def test_settings_of_transformers_are_followed_for_each_answer_alone(llama):
    requests = asked(repetition_penalty=3.0, no_repeat_ngram_size=2)
    answers = generator(llama).generate(requests)
    assert [answer.tokens for answer in answers] != [answer.tokens for answer in generator(llama).generate(asked())]
    for ours, request in zip(answers, requests, strict=True):
        check_same(ours, expected(llama, request))


@pytest.mark.parametrize(
    ("settings", "named"), [({"num_beams": 3}, "beam search"), ({"top_pp": 1}, "top_pp of generation_kwargs")]
)
def test_what_is_not_done_is_refused(llama, settings, named):
    with pytest.raises(UserError, match=named):
        generator(llama).generate(asked(**settings))


def test_drawn_answers_depend_on_their_seed_and_on_no_batch(llama):
    requests = asked(do_sample=True, temperature=2.0, top_k=50)
    together = generator(llama).generate(requests)
    alone = [generator(llama).generate([request])[0] for request in requests]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    again = [GenerationRequest(request.prompt, NEW, [], request.settings, request.seed + 99) for request in requests]
    others = generator(llama).generate(again)
    assert all(a.tokens != b.tokens for a, b in zip(together, others, strict=True))
    scored = LocalEngine(llama, 256).score(
        [(request.prompt, answer.tokens) for request, answer in zip(requests, together, strict=True)]
    )
    for answer, of_answer in zip(together, scored, strict=True):  # of the model's own distribution, without the temperature
        assert answer.token_logprobs == pytest.approx(of_answer.token_logprobs, abs=2e-4)


def test_rounded_keys_and_values_are_what_later_tokens_read(monkeypatch):
    plain, model = (build("llama", **FAMILIES["llama"]) for _ in range(2))
    rounded: list[int] = []
    real = keys_values.fake_quantize
    monkeypatch.setattr(keys_values, "fake_quantize", lambda x, numbers: rounded.append(x.shape[2]) or real(x, numbers))
    rounding = attach(model, InferenceScheme(kv=KeysValues(2)))
    for each in (plain, model):
        each.generation_config.eos_token_id = None
    answers = generator(model, rounding=rounding).generate(asked())
    n_blocks = len(find_blocks(model)[1])
    assert rounded.count(1) >= 2 * n_blocks * (NEW - 1)  # keys and values of every token that was written
    teacher_forced = LocalEngine(model, 256, rounding=rounding).score(
        [(request.prompt, answer.tokens) for request, answer in zip(asked(), answers, strict=True)]
    )
    exact = generator(plain).generate(asked())
    for answer, scored, of_exact in zip(answers, teacher_forced, exact, strict=True):
        assert answer.token_logprobs == pytest.approx(scored.token_logprobs, abs=1e-3)
        assert max(abs(a - b) for a, b in zip(answer.token_logprobs, of_exact.token_logprobs, strict=True)) > 0.01


def test_a_model_that_rounds_nothing_in_its_cache_is_refused(llama):
    rounding = InferenceRounding()
    rounding.to_round[find_blocks(llama)[1][0]] = "the keys and values of model.layers.0"
    with pytest.raises(UserError, match=r"does not round 1 of 1: the keys and values of model\.layers\.0"):
        generator(llama, rounding=rounding).generate(asked())


def written_until_killed(writer: TextGenerator, path, monkeypatch, batches: int) -> None:
    real = text_generator.write_answers
    done: list[int] = []

    def killed(*given):
        if len(done) == batches:
            raise KeyboardInterrupt
        done.append(1)
        real(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(text_generator, "write_answers", killed)
        writer.generate(asked(), journal=journal_at(path))


def test_what_the_journal_has_is_not_written_again_and_the_rest_is_the_same_to_the_last_bit(llama, tmp_path, monkeypatch):
    monkeypatch.setitem(text_generator.MOST_ROWS, "cpu", 2)
    whole = generator(llama).generate(asked())
    path = tmp_path / "j.answers.jsonl"
    written_until_killed(generator(llama), path, monkeypatch, batches=2)
    before, advanced, writer = len(journal_at(path)), [], generator(llama)
    assert 0 < before < len(PROMPTS)
    resumed = writer.generate(asked(), advance=advanced.append, journal=journal_at(path))
    assert resumed == whole and advanced[0] == before and sum(advanced) == len(PROMPTS)
    assert generator(llama).generate(asked(), journal=journal_at(path)) == whole


def test_batches_that_do_not_fit_are_made_smaller(llama, tmp_path, monkeypatch, caplog):
    real, tried = text_generator.write_answers, []

    def scarce(state, shared, answers):
        tried.append(len(answers))
        if len(answers) > 2:
            raise MemoryError
        real(state, shared, answers)

    monkeypatch.setattr(text_generator, "write_answers", scarce)
    journal = journal_at(tmp_path / "j")
    journal.begin(Limits(512, 512))
    for ours, request in zip(generator(llama).generate(asked(), journal=journal), asked(), strict=True):
        check_same(ours, expected(llama, request))
    assert max(tried) > 2 and "out of memory with a batch of" in caplog.text


def test_a_broken_model_is_named_with_its_layer():
    model = build("llama", **FAMILIES["llama"])
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(UserError, match=r"answer \d: the probability of a token .* model\.layers\.1\.mlp"):
        generator(model).generate(asked())
