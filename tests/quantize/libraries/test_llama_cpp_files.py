"""GGUF files that are made here: llama.cpp's mixtures, rounding and header, and what a real llama.cpp makes of them."""

from __future__ import annotations

from collections import Counter

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
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.libraries.llama_cpp import LlamaCpp, mean_squares
from bitsure.quantize.libraries.llama_cpp_mixture import Mixture
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.weights import GgufWeight
from tests.builders.gguf_files import save_llama, write_decoded
from tests.builders.llama_cpp import count_tokens, token_logprobs
from tests.builders.marks import library
from tests.builders.plans import plan, save_family

library("libgguf")

TEXT = "the cat sat on the mat while it rained in the town."


def made(model, quant, calib_file, tmp_path):
    planned = plan(model, quant, calib_file)
    check_plan(planned, Store(tmp_path))
    return ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")


def types(kind, matrix, blocks=32, shared_heads=1, has_imatrix=False):
    mixture = Mixture(kind, blocks, shared_heads, False, has_imatrix)
    return [mixture.choose(f"blk.{block}.{matrix}.weight", 4096) for block in range(blocks)]


def test_mixtures_are_llama_cpps():
    """As published files of Llama 2 7B have them (32 blocks, no heads shared); 70B's values have more bits."""
    more = [block for block, kind in enumerate(types("q4_k_m", "attn_v")) if kind == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert types("q4_k_m", "ffn_down") == types("q4_k_m", "attn_v") and set(types("q4_k_m", "attn_q")) == {"Q4_K"}
    assert types("q4_k_s", "attn_v") == ["Q5_K"] * 4 + ["Q4_K"] * 28
    assert types("q3_k_m", "ffn_down") == ["Q5_K"] * 2 + ["Q4_K"] * 30 and set(types("q3_k_m", "attn_output")) == {"Q4_K"}
    assert types("q2_k", "attn_v", shared_heads=4)[0] == "Q4_K" and types("q2_k", "attn_v")[0] == "Q3_K"
    assert Counter(types("iq4_xs", "ffn_down")) == {"Q5_K": 4, "IQ4_XS": 28}
    assert set(types("iq4_xs", "ffn_down", has_imatrix=True)) == {"IQ4_XS"}
    assert types("q4_0", "ffn_down", has_imatrix=True)[:5] == ["Q4_1"] * 4 + ["Q4_0"]
    assert set(types("q3_k_s", "attn_v", blocks=80, shared_heads=8)) == {"Q5_K"}  # 70B's
    assert set(types("q3_k_s", "attn_v", blocks=80)) == {"Q3_K"}  # 65B's


def test_mixtures_of_the_kinds_of_few_bits():
    """As llama_tensor_get_type has them; the head takes 5 bits below 3, and 6 above."""
    assert Counter(types("iq2_xxs", "ffn_down")) == {"Q2_K": 4, "IQ2_XXS": 28} and set(types("iq1_m", "attn_output")) == {
        "IQ2_XXS"
    }
    assert Counter(types("iq2_m", "ffn_down")) == {"IQ3_S": 4, "IQ2_S": 28} and set(types("iq2_s", "attn_q")) == {"IQ2_XS"}
    assert set(types("iq2_s", "attn_v")) == {"IQ3_S"} and set(types("iq2_s", "attn_v", shared_heads=4)) == {"Q4_K"}
    assert set(types("iq3_xxs", "attn_k")) == {"IQ2_S"} and set(types("iq3_xxs", "attn_v")) == {"IQ3_XXS"}
    assert Counter(types("iq3_xs", "ffn_up")) == {"IQ3_S": 8, "IQ3_XXS": 24} and set(types("iq3_m", "attn_v")) == {"Q4_K"}
    assert Counter(types("q2_k_s", "ffn_down")) == {"Q4_K": 4, "Q2_K": 28} and set(types("q2_k_s", "attn_v")) == {"Q2_K"}
    for kind, head, embedding in (("iq1_s", "Q5_K", "Q2_K"), ("iq3_xxs", "Q5_K", "IQ3_S"), ("iq3_m", "Q6_K", "IQ3_S")):
        mixture = Mixture(kind, 32, 1, False, True)
        assert (mixture.choose("output.weight", 4096), mixture.choose("token_embd.weight", 4096)) == (head, embedding)
        assert mixture.choose("blk.9.attn_q.weight", 576) == "IQ4_NL"


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_weights_are_kept_and_decoded_as_gguf_does(kind):
    """The embedding takes Q4_K and the head Q6_K, as in llama.cpp."""
    import gguf
    import libgguf

    mixture = Mixture(kind.lower(), 32, 1, False, False)
    assert {*types(kind.lower(), "attn_v"), *types(kind.lower(), "ffn_down")} == {kind}
    assert (mixture.choose("output.weight", 4096), mixture.choose("token_embd.weight", 4096)) == ("Q6_K", "Q4_K")
    assert mixture.choose("blk.0.attn_q.weight", 576) == "Q4_0"
    generator = np.random.default_rng(0)
    ternary = (generator.integers(-1, 2, (4, 512)) * np.array([[0.5], [2.0], [0.125], [3.0]])).astype(np.float32)
    for values in (ternary, generator.normal(size=(4, 512)).astype(np.float32)):
        rows = libgguf.quantize_rows(values, libgguf.GGMLQuantizationType[kind], None)
        decoded = GgufWeight(torch.from_numpy(rows), libgguf.GGMLQuantizationType[kind].value).dequantize().numpy()
        theirs = gguf.quantize(values, gguf.GGMLQuantizationType[kind])
        assert np.array_equal(decoded, gguf.dequantize(theirs, gguf.GGMLQuantizationType[kind]))
        assert np.array_equal(decoded, ternary) or values is not ternary


def test_heads_and_widths():
    untied, tied = (Mixture("q4_k_m", 32, 1, tied, False) for tied in (False, True))
    assert (untied.choose("output.weight", 4096), untied.choose("token_embd.weight", 4096)) == ("Q6_K", "Q4_K")
    assert tied.choose("token_embd.weight", 4096) == "Q6_K" and tied.choose("token_embd.weight", 576) == "Q8_0"
    assert Mixture("q8_0", 32, 1, True, False).choose("token_embd.weight", 4096) == "Q8_0"
    assert [untied.choose("blk.5.attn_q.weight", width) for width in (512, 576, 100)] == ["Q4_K", "Q5_0", "F16"]
    assert untied.choose("blk.0.attn_v.weight", 576) == "Q8_0"
    with pytest.raises(UserError, match=r"quant=q4_0: blk\.1\.ffn_up\.weight has rows of 100 weights"):
        Mixture("q4_0", 32, 1, False, False).choose("blk.1.ffn_up.weight", 100)


def test_a_file_is_what_is_scored_and_what_llama_cpp_computes(tiny_llama, calib_file, tmp_path):
    library("xllamacpp")
    result = made(tiny_llama, LlamaCpp("q4_k_m"), calib_file, tmp_path)
    proof, file = result.proof, result.shipped
    assert file == result.checkpoint / "model.gguf" and proof.bytes_on_disk == file.stat().st_size
    assert proof.quantizer == "q4_k_m" and proof.modules_skipped == {} and 4.5 < proof.bits_per_weight < 5.5
    assert "token_embd.weight" in proof.tensor_types["Q6_K"].tensors
    scored, tokenizer = load_model(tiny_llama, "float32")
    put_into(scored, result.checkpoint)
    alone, own = locate_model(ModelSettings(path=str(file)), None, Store(tmp_path / "store")).load("float32")
    for name, tensor in alone.state_dict().items():
        assert torch.equal(scored.state_dict()[name], tensor), name
    assert own.get_vocab() == tokenizer.get_vocab() and own.eos_token == tokenizer.eos_token
    ids = tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        ours = torch.log_softmax(scored(torch.tensor([ids])).logits[0].double(), -1)[range(len(ids) - 1), ids[1:]].numpy()
    theirs = token_logprobs(file, ids, len(tokenizer), tokenizer.convert_tokens_to_ids("a"))
    assert np.abs(np.array(theirs) - ours).mean() < 0.1  # it rounds the inputs of layers to 8 bits
    assert count_tokens(file, [TEXT, "1984 ÄÖ"]) == [len(tokenizer(text)["input_ids"]) for text in (TEXT, "1984 ÄÖ")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["q2_k_s", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m"])
def test_kinds_of_few_bits_are_what_llama_cpp_computes(kind, tiny_llama, calib_file, tmp_path):
    """Given the decoded weights as F32; its own kernels round the inputs of layers to 8 bits besides."""
    library("xllamacpp")
    result = made(tiny_llama, LlamaCpp(kind, imatrix=True), calib_file, tmp_path)
    model, tokenizer = load_model(tiny_llama, "float32")
    put_into(model, result.checkpoint)
    ids, plain = tokenizer(TEXT)["input_ids"], tokenizer.convert_tokens_to_ids("a")
    with torch.no_grad():
        ours = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)[range(len(ids) - 1), ids[1:]].numpy()
    decoded = write_decoded(result.shipped, tmp_path / "decoded.gguf")
    assert np.abs(np.array(token_logprobs(decoded, ids, len(tokenizer), plain)) - ours).max() < 1e-4
    assert np.abs(np.array(token_logprobs(result.shipped, ids, len(tokenizer), plain)) - ours).mean() < 0.1


def test_an_importance_matrix_lowers_the_error_of_outputs(tiny_llama, calib_file, tmp_path):
    plain, weighted = (made(tiny_llama, LlamaCpp("q2_k", imatrix), calib_file, tmp_path).proof for imatrix in (False, True))
    errors = [np.mean([layer.output_error for layer in proof.layers.values()]) for proof in (plain, weighted)]
    assert errors[1] < 0.95 * errors[0] and plain.bits_per_weight == weighted.bits_per_weight
    assert (plain.calib_data.windows, weighted.calib_data.windows) == (0, 16) and weighted.quantizer == "q2_k-imatrix"


def test_importance_is_the_mean_square_of_the_inputs(tiny_llama):
    model, _ = load_model(tiny_llama, "float32")
    windows, inputs = torch.arange(96).view(3, 32), []
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda layer, given: inputs.append(given[0]))
    with torch.no_grad():
        model(windows)
    hook.remove()
    importance = mean_squares(model, windows)
    expected = inputs[0].flatten(0, 1).square().mean(0).numpy()
    assert np.allclose(importance["model.layers.1.mlp.down_proj"], expected, rtol=1e-4) and len(importance) == 14


def test_widths_that_blocks_do_not_fill_are_named(calib_file, tmp_path, caplog):
    save_llama(tmp_path / "narrow", 64)
    result = made(tmp_path / "narrow", LlamaCpp("q4_k_m"), calib_file, tmp_path)
    assert "q4_k_m: 15 matrices have widths that its blocks do not fill and take other types (Q5_0, Q8_0)" in caplog.text
    assert "token_embd.weight (64 columns)" in caplog.text
    assert {kind for kind in result.proof.tensor_types if kind != "F32"} == {"Q5_0", "Q8_0"}


def test_kinds_that_need_an_importance_matrix(tiny_llama, calib_file, tmp_path):
    with pytest.raises(
        UserError, match=r"quant=iq1_s: .* importance matrix alone\. Set quant\.imatrix=true, or take one of q2_k, "
    ):
        LlamaCpp("iq1_s")
    proof = made(tiny_llama, LlamaCpp("iq2_xxs", imatrix=True), calib_file, tmp_path).proof
    assert proof.quantizer == "iq2_xxs" and set(proof.tensor_types) == {"F32", "Q5_K", "IQ2_XXS", "Q2_K"}
    assert proof.tensor_types["IQ2_XXS"].bits_per_weight == 2.0625 and proof.relative_error < 0.5


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral"])
def test_files_of_other_families_are_read_back_as_they_were_scored(family, tiny_llama, calib_file, tmp_path, caplog):
    save_family(family, tmp_path / family, tiny_llama)
    result = made(tmp_path / family, LlamaCpp("q8_0"), calib_file, tmp_path)
    scored, _ = load_model(tmp_path / family, "float32")
    put_into(scored, result.checkpoint)
    assert ("attends to a whole text and this model to the last 200 tokens" in caplog.text) is (family == "mistral")
    caplog.clear()
    alone, _ = locate_model(ModelSettings(path=str(result.shipped)), None, Store(tmp_path / "store")).load("float32")
    assert "llama.cpp" not in caplog.text  # nothing that transformers' loader leaves out
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(alone(ids).logits, scored(ids).logits, atol=1e-4)


def test_models_and_tokenizers_that_are_not_written_are_refused_before_weights(tiny_model, tiny_llama, calib_file, tmp_path):
    from tokenizers import pre_tokenizers

    with pytest.raises(
        UserError,
        match=r"quant=q4_k_m: GGUF files are written of llama, mistral, qwen2, qwen3, gemma2, gemma3_text, and this .* opt",
    ):
        made(tiny_model, LlamaCpp("q4_k_m"), calib_file, tmp_path)
    save_llama(tmp_path / "scaled", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    with pytest.raises(UserError, match=r"quant=q4_k_m: .*this model's are dynamic"):
        made(tmp_path / "scaled", LlamaCpp("q4_k_m"), calib_file, tmp_path)
    save_llama(tmp_path / "words")
    tokenizer = load_tokenizer(tiny_llama)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save_pretrained(tmp_path / "words")
    with pytest.raises(UserError, match=r"quant=q4_k_m: .*This model's tokenizer is another"):
        made(tmp_path / "words", LlamaCpp("q4_k_m"), calib_file, tmp_path)
    with pytest.raises(UserError, match=r"quant\.type=q9: "):
        LlamaCpp("q9")


def test_the_header_says_what_llama_cpp_asks_for(tiny_llama, calib_file, tmp_path):
    metadata = read_gguf(made(tiny_llama, LlamaCpp("q8_0"), calib_file, tmp_path).shipped).metadata
    assert metadata["general.file_type"] == 7 and metadata["llama.rope.freq_base"] == 10000.0
    assert metadata["tokenizer.ggml.pre"] == "gpt-2" and metadata["tokenizer.ggml.add_bos_token"] is False
    assert [metadata["tokenizer.ggml.token_type"][id_] for id_ in (0, 3)] == [3, 1]  # special tokens are never text
