"""The order in which architectures keep the rows of their matrices in a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.models.gguf.architecture import check_architecture, row_order, tensor_names
from bitsure.models.gguf.gguf_header import GgufFile, GgufTensor
from tests.builders.families import FAMILIES, build
from tests.builders.marks import needs_transformers_5

pytestmark = needs_transformers_5


def file_with(architecture: str, **shapes: tuple[int, int]) -> GgufFile:
    from gguf import GGMLQuantizationType

    tensors = {name: GgufTensor(name, shape, GGMLQuantizationType.Q8_0, 0) for name, shape in shapes.items()}
    return GgufFile(Path("m.gguf"), {"general.architecture": architecture}, tensors)


def test_llamas_heads_are_split_into_halves_again():
    name = "blk.0.attn_k.weight"
    order = row_order(file_with("llama", **{name: (32, 64)}), name, build("llama", **FAMILIES["llama"]))
    stored = np.arange(32).reshape(2, 2, 8).swapaxes(1, 2).ravel()  # 2 heads of 16 rows, as llama.cpp interleaves the halves
    assert np.array_equal(stored[order], np.arange(32))


def test_blooms_queries_keys_and_values_are_put_together_by_heads():
    name = "blk.1.attn_qkv.weight"
    order = row_order(file_with("bloom", **{name: (192, 64)}), name, build("bloom", **FAMILIES["bloom"]))
    stored = np.arange(192).reshape(4, 3, 16).swapaxes(0, 1).ravel()  # 4 heads of 16 rows
    assert np.array_equal(stored[order], np.arange(192))


@pytest.mark.parametrize("shape", [(64, 64), (192, 64)])
def test_gpt2s_matrices_keep_their_rows_though_transformers_holds_them_turned(shape):
    name = "blk.0.attn_output.weight"
    order = row_order(file_with("gpt2", **{name: shape}), name, build("gpt2", **FAMILIES["gpt2"]))
    assert np.array_equal(order, np.arange(shape[0]))


def test_names_are_those_of_the_model():
    names = tensor_names(file_with("qwen2"), build("qwen2", **FAMILIES["qwen2"]))
    assert names["blk.1.attn_q.bias"] == "model.layers.1.self_attn.q_proj.bias"
    assert names["token_embd.weight"] == "model.embed_tokens.weight" and names["output.weight"] == "lm_head.weight"


@pytest.mark.parametrize("architecture", ["opt", "t5", "clip"])
def test_architectures_that_transformers_does_not_load_are_refused_and_the_others_named(architecture):
    with pytest.raises(UserError, match=f"architecture {architecture}, which .* It knows bloom, .*gemma2.*qwen2.*qwen35"):
        check_architecture(file_with(architecture))
    check_architecture(file_with("qwen2moe"))
    check_architecture(file_with("gpt-oss"))
