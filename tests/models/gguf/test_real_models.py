"""The models of `make real-models` beside llama.cpp, which reads the files that they were decoded from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitsure.config.paths import PROJECT
from bitsure.models.load import load_model
from tests.builders.gguf_files import write_decoded
from tests.builders.llama_cpp import token_logprobs

pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
TEXT = "The cat sat on the mat while it rained in the town."


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_log_probabilities_are_those_of_llama_cpp(name, tmp_path):
    """With the same weights to 0.001 nats; llama.cpp's own kernels round the inputs of layers to 8 bits besides."""
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
    assert same_weights.max() < 1e-3
    assert own_kernels.mean() < 0.2
