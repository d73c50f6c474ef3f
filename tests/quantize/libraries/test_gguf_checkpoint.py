"""GGUF files that others quantized, paired with their parent."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.models.gguf.gguf_header import read_gguf
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.models.tokenizers import load_tokenizer
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.libraries.gguf_checkpoint import read_blocks
from bitsure.quantize.walk.targets import block_linears
from bitsure.quantize.weights import GgufWeight
from tests.builders.gguf_files import llama_tensors, save_llama, write_llama
from tests.builders.plans import taken

TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
)


def q4_k_m(name: str) -> str:
    """llama.cpp's mixture in small; one layer stays in half precision, as where a width is no multiple of a block."""
    high = {"token_embd.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight"}
    return "F16" if name == "blk.1.ffn_down.weight" else "Q6_K" if name in high else "Q4_K"


@pytest.fixture(scope="module")
def llama(tiny_llama):
    return load_model(tiny_llama, "float32")


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_decoded_as_llama_cpp_does_to_the_last_bit(kind):
    """llama.cpp's own code decodes random blocks; a scale may be NaN."""
    import libgguf
    from gguf import GGMLQuantizationType

    number = GGMLQuantizationType[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (64, libgguf.row_size(number, 512)), dtype=np.uint8)
    with np.errstate(all="ignore"):
        values = GgufWeight(torch.from_numpy(blocks), number.value).dequantize().numpy()
    expected = libgguf.dequantize_rows(blocks, number)
    assert np.array_equal(values, expected, equal_nan=True) and (np.isfinite(values).mean() > 0.5)


@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K"])
def test_blocks_are_those_of_the_models_rows(llama, kind, tmp_path):
    """The file holds rows of queries and keys in another order."""
    import libgguf
    from gguf import GGMLQuantizationType

    weights, others = read_blocks(read_gguf(write_llama(tmp_path / "m.gguf", *llama, kind)), llama[0])
    assert weights.keys() == {*block_linears(llama[0]), "model.embed_tokens"}
    number = GGMLQuantizationType[kind]
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.embed_tokens"):
        values = llama[0].get_submodule(name).weight.detach().numpy()
        expected = libgguf.dequantize_rows(libgguf.quantize_rows(values, number), number)
        assert np.array_equal(weights[name].dequantize().numpy(), expected)
        assert weights[name].storage_bits == 8 * libgguf.row_size(number, 256) * len(values)
    assert all(torch.equal(tensor, llama[0].state_dict()[name]) for name, tensor in others.items())  # norms


def test_a_mixture_is_measured_by_its_real_blocks(llama, tiny_llama, calib_file, tmp_path, caplog):
    path = write_llama(tmp_path / "m-Q4_K_M.gguf", *llama, q4_k_m, llama__rope__freq_base=20000.0)
    result = taken(tiny_llama, path, calib_file, tmp_path)
    proof = result.proof
    assert proof.quantizer == "m-Q4_K_M.gguf" and proof.bytes_on_disk == path.stat().st_size
    assert set(proof.tensor_types) == {"Q4_K", "Q6_K", "F16", "F32"} and "round them to 8 bits" in proof.not_applied[0]
    assert (
        proof.not_used == ["its rope.freq_base is 20000.0; that of llama, 10000.0, counts"] and proof.not_used[0] in caplog.text
    )
    assert sorted(proof.tensor_types["Q6_K"].tensors) == ["blk.0.attn_v.weight", "blk.0.ffn_down.weight", "token_embd.weight"]
    assert (proof.tensor_types["Q4_K"].bits_per_weight, proof.tensor_types["Q6_K"].bits_per_weight) == (4.5, 6.5625)
    by_type = {kind: proof.tensor_types[kind] for kind in ("Q4_K", "Q6_K")}
    bits = sum(kind.bits_per_weight * kind.weights for kind in by_type.values())
    assert proof.bits_per_weight == pytest.approx(bits / sum(kind.weights for kind in by_type.values()))
    assert list(proof.modules_skipped) == ["model.layers.1.mlp.down_proj"]  # the head is the embedding, which is rounded
    assert "model.embed_tokens" in proof.modules_quantized and proof.layers["model.layers.0.mlp.up_proj"].weight_error > 0.01
    scored, _ = load_model(tiny_llama, "float32")
    put_into(scored, result.checkpoint)
    alone, _ = locate_model(ModelSettings(path=str(path)), None, Store(tmp_path / "store")).load("float32")
    for name, tensor in alone.state_dict().items():  # transformers' loader reads the same numbers
        assert torch.equal(scored.state_dict()[name], tensor), name


def test_a_head_of_its_own_and_a_parent_that_is_a_gguf_file(calib_file, tmp_path, caplog):
    save_llama(tmp_path / "hf", 256, tie_word_embeddings=False)
    model = load_model(tmp_path / "hf", "float32")
    parent = locate_model(
        ModelSettings(path=str(write_llama(tmp_path / "f32.gguf", *model, "F32"))), None, Store(tmp_path / "store")
    )
    tensors = {**llama_tensors(model[0]), "rope_freqs.weight": torch.ones(8).numpy()}
    caplog.set_level(logging.WARNING)
    result = taken(parent.path, write_llama(tmp_path / "q.gguf", *model, "Q4_0", tensors), calib_file, tmp_path)
    assert {"lm_head", "model.embed_tokens"} <= set(result.proof.modules_quantized) and result.proof.modules_skipped == {}
    assert result.proof.bits_per_weight == 4.5
    assert "q.gguf: tensors without a place in model are not used: rope_freqs.weight" in caplog.text


def test_files_of_other_models_are_refused_before_weights_are_loaded(llama, tiny_llama, tiny_model, calib_file, tmp_path):
    tensors = llama_tensors(llama[0])
    few = {name: values for name, values in tensors.items() if name != "blk.1.attn_norm.weight"}
    wide = tensors | {"blk.0.ffn_up.weight": tensors["blk.0.ffn_up.weight"][:256]}
    narrow = wide | {"blk.1.ffn_up.weight": tensors["blk.1.ffn_up.weight"][:256]}
    words = list(load_tokenizer(tiny_llama).get_vocab())
    cases = {
        "is not quantized from llama: it lacks model.layers.1.input_layernorm.weight": {"tensors": few},
        r"blk.0.ffn_up.weight has the shape (256, 256), (512, 256) here": {"tensors": narrow},  # the first one
        "its attention.head_count_kv is 4, 2 here": {"llama__attention__head_count_kv": 4},
        "its tokenizer is not that of llama: the token": {"tokenizer__ggml__tokens": words},
        "quantizes no layer: they are F16. As the full-precision model": {"kind": "F16"},
    }
    for reason, changes in cases.items():
        path = write_llama(tmp_path / "m.gguf", *llama, **{"kind": "Q4_0", **changes})
        with pytest.raises(UserError, match=re.escape(reason)):
            taken(tiny_llama, path, calib_file, tmp_path)
    with pytest.raises(UserError, match=r"m\.gguf is not quantized from tiny: its attention\.head_count is 4, 2 here"):
        taken(tiny_model, path, calib_file, tmp_path)
    shuffled = tensors | {"blk.0.ffn_up.weight": tensors["blk.0.ffn_gate.weight"]}
    path = write_llama(tmp_path / "m.gguf", *llama, "Q4_0", shuffled)
    with pytest.raises(UserError, match=r"differ by more than their own size, such as model\.layers\.0\.mlp\.up_proj"):
        taken(tiny_llama, path, calib_file, tmp_path)
