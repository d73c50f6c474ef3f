"""The numbers of every scored token against a plain pass in float64."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitsure.base.errors import UserError
from bitsure.scoring.texts import text_pass
from bitsure.scoring.texts.kept_states import KeptStates, writing_states
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.scoring.texts.text_pass import KeptFullModel, TextModel
from bitsure.scoring.texts.text_protocol import WindowSettings, make_protocol
from bitsure.scoring.texts.token_scores import TokenScores
from tests.builders.marks import SHARED, needs_shared
from tests.builders.texts import DOCUMENTS, text_settings, write_documents


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def windows(folder, tokenizer, protocol, window):
    settings = text_settings(write_documents(folder), protocol)
    text = locate_text_file(settings, None).read()
    return make_protocol(settings).cut(text, tokenizer, WindowSettings(window)).windows


def score(model, windows):
    scores = scored(TextModel(model), windows)
    return [scores.logprob, scores.top_token, scores.top_logprob]


def scored(text_model, windows, full=None, keep=None) -> TokenScores:
    done, scores = 0, []
    while done < len(windows):
        batch = text_model.next_batch(windows[done:])
        states = text_model.states(batch)
        if keep is not None:
            keep.write(states)
        scores.append(text_model.score(batch, states, full))
        done += len(batch)
    columns = zip(*(vars(part).values() for part in scores), strict=True)
    return TokenScores(*(None if column[0] is None else np.concatenate(column) for column in columns))


def rounded_to_bfloat16(model):
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.bfloat16())
    return rounded


@pytest.mark.parametrize("shares", [True, False], ids=["states before the head", "logits"])
@pytest.mark.parametrize("protocol", ["gptq", "harness"])
def test_scores_are_those_of_a_plain_pass(model, tokenizer, tmp_path, protocol, shares, monkeypatch):
    if not shares:
        monkeypatch.setattr(text_pass, "why_not_from_states", lambda model, ids: "its logits are another matter")
    cut = windows(tmp_path, tokenizer, protocol, 32)
    logprob, top, top_logprob = score(model, cut)
    with torch.inference_mode():
        exact = model.double()
        expected = [
            exact(input_ids=torch.from_numpy(w.tokens[None, :-1])).logits[0, w.first_scored - 1 :].log_softmax(-1) for w in cut
        ]
    model.float()
    rows, true = torch.cat(expected), torch.from_numpy(np.concatenate([w.scored for w in cut]))
    np.testing.assert_allclose(logprob, rows.gather(-1, true[:, None])[:, 0].numpy(), atol=2e-5)
    np.testing.assert_allclose(top_logprob, rows.max(-1).values.numpy(), atol=2e-5)
    assert (top == rows.argmax(-1).numpy()).mean() > 0.99


def test_documents_have_the_harness_s_own_log_likelihoods(model, tokenizer, tmp_path):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, max_length=48)
    requests = [Instance("loglikelihood_rolling", {}, (text,), i, metadata=("text", i, 1)) for i, text in enumerate(DOCUMENTS)]
    expected = lm.loglikelihood_rolling(requests, disable_tqdm=True)
    cut = windows(tmp_path, tokenizer, "harness", 48)
    documents = np.concatenate([window.documents for window in cut])
    sums = np.bincount(documents, score(model, cut)[0].astype(np.float64))
    np.testing.assert_allclose(sums, expected, rtol=1e-6, atol=1e-3)


def test_a_batch_that_does_not_fit_is_run_in_halves(model, tokenizer, tmp_path, monkeypatch):
    cut = windows(tmp_path, tokenizer, "gptq", 32)
    expected, run, sizes = score(model, cut), TextModel._run, []

    def failing(self, batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return run(self, batch)

    monkeypatch.setattr(TextModel, "_run", failing)
    for now, before in zip(score(model, cut), expected, strict=True):
        np.testing.assert_allclose(now, before, atol=1e-5)
    assert max(sizes) > 2 >= sizes[-1]


@pytest.mark.parametrize("way", ["kept states", "states again", "whole logits"])
def test_an_identical_model_is_faithful_to_the_last_bit(model, tokenizer, tmp_path, way, monkeypatch):
    if way == "whole logits":
        monkeypatch.setattr(text_pass, "why_not_from_states", lambda model, ids: way)
    cut = windows(tmp_path, tokenizer, "gptq", 32)
    full = TextModel(copy.deepcopy(model))
    if way == "kept states":
        with writing_states(tmp_path) as keep:
            scored(full, cut, keep=keep)
        full = KeptFullModel(copy.deepcopy(model), KeptStates(tmp_path))
    assert (scored(TextModel(model), cut, full).kl_divergence == 0).all()


def test_the_divergence_is_that_of_a_plain_computation_in_doubles(model, tokenizer, tmp_path):
    cut, other = windows(tmp_path, tokenizer, "gptq", 32), rounded_to_bfloat16(model)
    divergence = scored(TextModel(other), cut, TextModel(copy.deepcopy(model))).kl_divergence
    ids = torch.from_numpy(np.stack([window.tokens for window in cut]))
    with torch.inference_mode():
        p, q = (
            copy.deepcopy(side).double()(input_ids=ids).logits[:, :-1].log_softmax(-1).flatten(0, 1) for side in (model, other)
        )
    np.testing.assert_allclose(divergence, (p.exp() * (p - q)).sum(-1).numpy(), rtol=2e-3, atol=1e-11)


def test_models_of_two_vocabularies_are_refused(model, tokenizer, tmp_path):
    class Other:
        def states(self, batch):
            return torch.zeros(1000, 1)

        def logits(self, states):
            return torch.zeros(len(states), 7)

    with pytest.raises(UserError, match=r"probabilities to 7 tokens and the quantized one to .* there is no KL divergence"):
        scored(TextModel(model), windows(tmp_path, tokenizer, "gptq", 32), Other())


def test_a_broken_model_is_refused_and_its_layer_named(tiny_model, tokenizer, tmp_path):
    broken = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    name, layer = next((n, m) for n, m in broken.named_modules() if isinstance(m, torch.nn.Linear))
    layer.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match=rf"log-probability of nan: the model is broken .*{name.split('.')[-1]}"):
        score(broken, windows(tmp_path, tokenizer, "gptq", 32))


@needs_shared
@pytest.mark.parametrize(("protocol", "window"), [("gptq", 256), ("llamacpp", 512)])
def test_perplexity_and_fidelity_are_the_shared_vector_s(protocol, window, tmp_path):
    expected = json.loads((SHARED / "vectors" / "text_fidelity.json").read_text())[f"{protocol}_{window}"]
    folder = SHARED / "hub" / "models" / "karpathy" / "stories260K"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    settings = text_settings(SHARED / "text" / "wikitext2-raw-test.txt", protocol)
    text = locate_text_file(settings, None).read()
    beginning = replace(text, parts=[text.parts[0][:40_000]])  # more than 8,192 tokens
    cut = make_protocol(settings).cut(beginning, tokenizer, WindowSettings(window, limit=8192)).windows
    with writing_states(tmp_path) as keep:
        before = scored(TextModel(model), cut, keep=keep)
    full = KeptFullModel(copy.deepcopy(model), KeptStates(tmp_path))
    after = scored(TextModel(rounded_to_bfloat16(model)), cut, full)
    assert (len(cut), len(before)) == (expected["windows"], expected["tokens"])
    change, divergence = np.exp(after.logprob) - np.exp(before.logprob), after.kl_divergence
    now = {
        "perplexity_full": math.exp(-before.logprob.mean()),
        "perplexity_quantized": math.exp(-after.logprob.mean()),
        "kl_divergence": divergence.mean(),
        "true_token_prob_change_rms": math.sqrt((change**2).mean()),
        "same_top_token": (before.top_token == after.top_token).mean(),
    }
    assert now == pytest.approx({name: expected[name] for name in now}, rel=1e-4)
    assert np.median(divergence) == pytest.approx(expected["kl_divergence_median"], rel=1e-3)
    assert divergence.max() == pytest.approx(expected["kl_divergence_max"], rel=1e-3)
    assert change.mean() == pytest.approx(expected["true_token_prob_change"], abs=1e-7)
