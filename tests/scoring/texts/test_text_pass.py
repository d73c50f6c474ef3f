"""The numbers of every scored token against a plain pass in float64."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitsure.base.errors import UserError
from bitsure.scoring.local import forward
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.scoring.texts.text_pass import TextModel
from bitsure.scoring.texts.text_protocol import WindowSettings, make_protocol
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
    text_model, done, scores = TextModel(model), 0, []
    while done < len(windows):
        batch = text_model.next_batch(windows[done:])
        scores.append(text_model.score(batch, text_model.states(batch)))
        done += len(batch)
    return [np.concatenate([getattr(part, name) for part in scores]) for name in ("logprob", "top_token", "top_logprob")]


@pytest.mark.parametrize("shares", [True, False], ids=["states before the head", "logits"])
@pytest.mark.parametrize("protocol", ["gptq", "harness"])
def test_scores_are_those_of_a_plain_pass(model, tokenizer, tmp_path, protocol, shares, monkeypatch):
    if not shares:
        monkeypatch.setattr(forward, "SHARING", ())
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


def test_a_broken_model_is_refused_and_its_layer_named(tiny_model, tokenizer, tmp_path):
    broken = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    name, layer = next((n, m) for n, m in broken.named_modules() if isinstance(m, torch.nn.Linear))
    layer.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match=rf"log-probability of nan: the model is broken .*{name.split('.')[-1]}"):
        score(broken, windows(tmp_path, tokenizer, "gptq", 32))


@needs_shared
@pytest.mark.parametrize(("protocol", "window"), [("gptq", 256), ("llamacpp", 512)])
def test_perplexity_is_the_shared_vector_s(protocol, window):
    expected = json.loads((SHARED / "vectors" / "text_fidelity.json").read_text())[f"{protocol}_{window}"]
    folder = SHARED / "hub" / "models" / "karpathy" / "stories260K"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    settings = text_settings(SHARED / "text" / "wikitext2-raw-test.txt", protocol)
    text = locate_text_file(settings, None).read()
    beginning = replace(text, parts=[text.parts[0][:40_000]])  # more than 8,192 tokens
    cut = make_protocol(settings).cut(beginning, tokenizer, WindowSettings(window, limit=8192)).windows
    logprob = score(model, cut)[0].astype(np.float64)
    assert (len(cut), len(logprob)) == (expected["windows"], expected["tokens"])
    assert math.exp(-logprob.mean()) == pytest.approx(expected["perplexity_full"], rel=1e-6)
