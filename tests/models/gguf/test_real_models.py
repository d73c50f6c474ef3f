"""The models of `make real-models` beside llama.cpp, which reads the files that they were decoded from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitsure.config.paths import PROJECT
from bitsure.models.gguf.gguf_header import read_gguf
from bitsure.models.load import load_model
from bitsure.quantize.libraries.llama_cpp_mixture import Mixture
from tests.builders.gguf_files import write_decoded
from tests.builders.llama_cpp import token_logprobs
from tests.builders.marks import library

library("xllamacpp")
TEXT = "The cat sat on the mat while it rained in the town."


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("smollm2-135m-instruct", 1e-3), ("gemma-3-270m", 5e-3)])
def test_log_probabilities_are_those_of_llama_cpp(name, tolerance, tmp_path):
    """With the same weights to thousandths of a nat; llama.cpp's own kernels round the inputs of layers to 8 bits besides."""
    directory = PROJECT / "real_models" / name
    if not directory.is_dir():
        pytest.skip(f"{directory} is not there: make real-models")
    model, tokenizer = load_model(directory, "float32")
    ids = tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    ours = torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]].numpy()
    gguf, plain = directory.with_name(f"{name}.gguf"), tokenizer.convert_tokens_to_ids("a")

    def differences(path):
        return np.abs(np.array(token_logprobs(path, ids, logits.shape[-1], plain)) - ours)

    own_kernels = differences(gguf)
    same_weights = differences(write_decoded(gguf, tmp_path / "decoded.gguf"))
    print(f"{name}: own kernels {own_kernels.mean():.4f}, {own_kernels.max():.4f}; F32 {same_weights.max():.6f}")
    assert same_weights.max() < tolerance
    assert own_kernels.mean() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "shared"), [("smollm2-135m-instruct", "q4_1", 3), ("gemma-3-270m", "q4_k_m", 4)])
def test_mixtures_are_those_of_published_files(name, kind, shared):
    path = PROJECT / "real_models" / f"{name}.gguf"
    if not path.is_file():
        pytest.skip(f"{path} is not there: make real-models")
    gguf = read_gguf(path)
    mixture = Mixture(kind, gguf.metadata[f"{gguf.architecture}.block_count"], shared, True, False)
    matrices = {name: tensor for name, tensor in gguf.tensors.items() if len(tensor.shape) == 2}
    assert {name: mixture.choose(name, tensor.shape[1]) for name, tensor in matrices.items()} == {
        name: tensor.type.name for name, tensor in matrices.items()
    }
