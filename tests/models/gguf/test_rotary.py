"""Scaled rotary positions in GGUF files: written, read back, and computed by a real llama.cpp."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.models.gguf.gguf_header import read_gguf
from bitsure.models.gguf.rotary import DIVISORS, frequency_divisors, positions_agree, rope_metadata
from bitsure.models.gguf.write_gguf import model_metadata
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from tests.builders.gguf_files import llama_tensors, write_llama
from tests.builders.llama_cpp import token_logprobs
from tests.builders.marks import library, needs_transformers_5

pytestmark = needs_transformers_5

TEXT = "the cat sat on the mat while it rained in"
SCALED = {
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}


def scaled(model, kind):
    config = copy.deepcopy(model.config)
    config.rope_parameters = {"rope_type": kind, "rope_theta": 10000.0, **SCALED.get(kind, {"factor": 2.0})}
    built = type(model)(config).eval()
    built.load_state_dict(model.state_dict())
    return built


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_positions_are_those_of_the_model_here_and_in_llama_cpp(kind, tiny_llama, tmp_path, caplog):
    library("xllamacpp")
    plain, tokenizer = load_model(tiny_llama, "float32")
    model = scaled(plain, kind)
    divisors = frequency_divisors(model.config)
    tensors = llama_tensors(model) | ({} if divisors is None else {DIVISORS: divisors})
    metadata = {key.replace(".", "__"): value for key, value in model_metadata(model.config).items()}
    path = write_llama(tmp_path / "m.gguf", model, tokenizer, "F32", tensors, **metadata)
    read, _ = locate_model(ModelSettings(path=str(path)), None, Store(tmp_path / "store")).load("float32")
    assert caplog.text == ""  # nothing is left out
    ids = tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        ours, own, unscaled = (
            torch.log_softmax(m(torch.tensor([ids])).logits[0].double(), -1)[range(len(ids) - 1), ids[1:]].numpy()
            for m in (read, model, plain)
        )
    theirs = np.array(token_logprobs(path, ids, len(tokenizer), tokenizer.convert_tokens_to_ids("a")))
    assert np.abs(ours - own).max() < 1e-5 and np.abs(theirs - own).max() < 1e-4 < 0.01 < np.abs(unscaled - own).max()


def test_a_parents_own_positions_are_recognized(tiny_llama, tmp_path):
    plain, tokenizer = load_model(tiny_llama, "float32")
    model = scaled(plain, "llama3")
    tensors = llama_tensors(model) | {DIVISORS: frequency_divisors(model.config)}
    gguf = read_gguf(write_llama(tmp_path / "m.gguf", model, tokenizer, "Q8_0", tensors))
    assert positions_agree(gguf, model.config) and not positions_agree(gguf, plain.config)


def test_positions_that_llama_cpp_does_not_compute_are_refused(tiny_llama):
    config = load_model(tiny_llama, "float32")[0].config
    for rope, named in (({"rope_type": "dynamic"}, "are dynamic"), ({"rope_type": "yarn", "mscale": 0.7}, "yarn with mscale")):
        config.rope_parameters = {"rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 64} | rope
        with pytest.raises(UserError, match=rf"plain rotary positions or with those scaled .*this model's {named}|{named}"):
            rope_metadata(config)
