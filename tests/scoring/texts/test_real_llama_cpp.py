"""Windows of the protocol llamacpp in a real llama.cpp."""

from __future__ import annotations

import numpy as np

from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.scoring.texts.text_pass import TextModel
from bitsure.scoring.texts.text_protocol import WindowSettings, make_protocol
from tests.builders.gguf_files import write_llama
from tests.builders.llama_cpp import token_logprobs
from tests.builders.marks import library
from tests.builders.texts import text_settings, write_documents

library("xllamacpp")


def test_a_window_has_the_log_probabilities_of_llama_cpp(tiny_llama, tmp_path):
    path = write_llama(tmp_path / "m.gguf", *load_model(tiny_llama, "float32"), "F32")
    model, tokenizer = locate_model(ModelSettings(path=str(path)), None, Store(tmp_path / "store")).load("float32")
    settings = text_settings(write_documents(tmp_path, ["the cat sat on the mat while it rained. " * 8]), "llamacpp")
    text = locate_text_file(settings, None).read()
    window = make_protocol(settings).cut(text, tokenizer, WindowSettings(24)).windows[1]
    text_model = TextModel(model)
    ours = text_model.score([window], text_model.states([window])).logprob
    theirs = token_logprobs(path, window.tokens.tolist(), len(tokenizer), tokenizer.convert_tokens_to_ids("a"))
    np.testing.assert_allclose(ours, theirs[window.first_scored - 1 :], atol=1e-4)
    assert len(ours) == 24 - 12 - 1
