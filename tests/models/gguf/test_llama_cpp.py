"""What a real llama.cpp computes with a GGUF file, beside what is computed here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.models.gguf.gguf_header import read_gguf
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from tests.builders.gguf_files import write_llama
from tests.builders.llama_cpp import count_tokens, token_logprobs
from tests.builders.marks import library

library("xllamacpp")

TEXT = "the cat sat on the mat while it rained in the town."


@pytest.fixture(scope="module")
def llama(tiny_llama):
    return load_model(tiny_llama, "float32")


def differences(path, tmp_path):
    """llama.cpp's log-probabilities less ours, and llama.cpp's, for the tokens of a text."""
    model, tokenizer = locate_model(ModelSettings(path=str(path)), None, Store(tmp_path / "store")).load("float32")
    ids = tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    ours = torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]].numpy()
    theirs = np.array(token_logprobs(path, ids, len(tokenizer), tokenizer.convert_tokens_to_ids("a")))
    return theirs - ours, theirs


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-4), ("F16", 1e-2)])
def test_floating_point_files_have_the_same_log_probabilities(llama, kind, tolerance, tmp_path):
    """With F16 weights llama.cpp rounds the inputs of layers to half precision, too."""
    assert np.abs(differences(write_llama(tmp_path / "m.gguf", *llama, kind), tmp_path)[0]).max() < tolerance


def test_rounded_files_differ_by_llama_cpps_rounding_of_inputs_alone(llama, tmp_path):
    """Given our decoded weights as F32, llama.cpp agrees; its own kernels for blocks round the inputs of layers to 8 bits."""
    path = write_llama(tmp_path / "m.gguf", *llama, lambda name: "Q6_K" if "attn_v" in name else "Q4_K")
    own_kernels, theirs = differences(path, tmp_path)
    gguf = read_gguf(path)
    decoded = write_llama(tmp_path / "d.gguf", *llama, "F32", {name: gguf.values(name) for name in gguf.tensors})
    same_weights, with_decoded = differences(decoded, tmp_path)
    assert np.abs(same_weights).max() < 1e-4
    assert 1e-3 < np.abs(theirs - with_decoded).mean() < 0.1
    assert np.allclose(own_kernels, theirs - with_decoded, atol=1e-4)


def test_texts_have_as_many_tokens(llama, tmp_path):
    path = write_llama(tmp_path / "m.gguf", *llama)
    texts = [TEXT, " 12345 it's", "ÄÖ → x\n\n  y"]
    assert count_tokens(path, texts) == [len(llama[1](text)["input_ids"]) for text in texts]
