"""GGUF files as full-precision models."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.models.gguf import unpack as unpacking
from bitsure.models.gguf_origin import read_origin
from bitsure.models.locate import locate_model
from bitsure.models.size import measure_size
from bitsure.models.tokenizers import load_tokenizer
from bitsure.models.weight_files import stored_bits, stored_types
from tests.builders.gguf_files import llama_tensors, write_llama


@pytest.fixture(scope="module")
def llama(tiny_llama):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama), load_tokenizer(tiny_llama)


def located(path, tmp_path):
    return locate_model(ModelSettings(path=str(path)), None, Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("kind", "dtype", "bits"), [("F32", torch.float32, 32), ("F16", torch.float16, 16), ("BF16", torch.bfloat16, 16)]
)
def test_floating_point_files_are_the_model_to_the_last_bit(llama, kind, dtype, bits, tmp_path, caplog):
    source = located(write_llama(tmp_path / "m.gguf", *llama, kind), tmp_path)
    model, tokenizer = source.load("float32")
    for name, tensor in llama[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.to(dtype).float()), name
    assert tokenizer("the fox")["input_ids"] == llama[1]("the fox")["input_ids"]
    assert source.name == "m.gguf" and caplog.text == ""
    assert set(stored_types(source.path)) == {kind}  # what the model was stored as, for what asks for its type
    assert stored_bits(source.path, 1) == pytest.approx(bits, rel=0.01)
    assert measure_size(source, Store(tmp_path / "store")).bytes_on_disk == (tmp_path / "m.gguf").stat().st_size


def test_a_rounded_file_is_scored_as_it_is_and_says_that_it_is_rounded(llama, tmp_path, caplog):
    types = lambda name: "Q6_K" if "attn_v" in name else "Q4_K"  # noqa: E731
    source = located(write_llama(tmp_path / "m.gguf", *llama, types), tmp_path)
    model, _ = source.load("float32")
    weight, original = (m.state_dict()["model.layers.1.mlp.up_proj.weight"] for m in (model, llama[0]))
    assert 0.01 < (weight - original).norm() / original.norm() < 0.2
    assert stored_bits(source.path, 1) == pytest.approx(4.6, abs=0.1)
    assert "m.gguf is quantized: Q4_K (13 tensors), Q6_K (2 tensors)" in caplog.text
    assert read_origin(source.path).tensor_types["Q6_K"].tensors == ["blk.0.attn_v.weight", "blk.1.attn_v.weight"]


def test_8_bits_stand_for_full_precision_without_a_warning(llama, tmp_path, caplog):
    source = located(write_llama(tmp_path / "m.gguf", *llama, "Q8_0"), tmp_path)
    assert caplog.text == "" and stored_bits(source.path, 1) == pytest.approx(8.5, abs=0.1)


def test_a_file_is_decoded_once_and_known_by_its_content(llama, tmp_path, monkeypatch):
    path = write_llama(tmp_path / "m.gguf", *llama)
    first = located(path, tmp_path)
    (tmp_path / "other").mkdir()
    copy = shutil.copy(path, tmp_path / "other" / "n.gguf")
    monkeypatch.setattr(unpacking, "_load", None)  # decoding again would fail
    assert located(copy, tmp_path).fingerprint == first.fingerprint
    shutil.rmtree(tmp_path / "store")
    monkeypatch.undo()
    assert located(copy, tmp_path).fingerprint == first.fingerprint
    other = write_llama(tmp_path / "o.gguf", *llama, "BF16")
    assert located(other, tmp_path).fingerprint != first.fingerprint


def test_what_transformers_loader_leaves_out_is_named_each_time(llama, tmp_path, caplog):
    tensors = llama_tensors(llama[0]) | {"rope_factors_long.weight": np.ones(8, np.float32)}
    more = {"llama__rope__scaling__type": "yarn", "llama__attention__key_length": 64, "tokenizer__ggml__pre": "falcon"}
    path = write_llama(tmp_path / "m.gguf", *llama, tensors=tensors, **more)
    for _ in range(2):
        located(path, tmp_path)
        assert "loader drops the tensors rope_factors_long.weight, which llama.cpp computes with" in caplog.text
        assert "loader leaves out llama.rope.scaling.type=yarn\n" in caplog.text  # the size of a head is what it is anyway
        assert "tokenizer.ggml.pre=falcon is not known here" in caplog.text
        caplog.clear()


def test_a_chat_template_is_text_until_it_is_asked_for(llama, tmp_path):
    template = "{% for i in range(10**9) %}{{ 1 / 0 }}{% endfor %}"
    source = located(write_llama(tmp_path / "m.gguf", *llama, tokenizer__chat_template=template), tmp_path)
    _, tokenizer = source.load("float32")
    assert tokenizer.chat_template == template


def test_files_that_are_no_model_are_refused_before_they_are_decoded(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "_load", None)
    path = write_llama(tmp_path / "m.gguf", *llama)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"m\.gguf was cut short or damaged"):
        located(path, tmp_path)
    with pytest.raises(UserError, match="no such file"):
        located(tmp_path / "none.gguf", tmp_path)
    with pytest.raises(UserError, match=r"holds no config\.json.*To read m\.gguf, give the path of the file"):
        located(tmp_path, tmp_path)


def test_files_that_lack_a_tensor_or_hold_no_numbers_are_refused_by_name(llama, tmp_path):
    tensors = llama_tensors(llama[0])
    lacking = {name: values for name, values in tensors.items() if name != "blk.1.ffn_up.weight"}
    with pytest.raises(UserError, match=r"m\.gguf has no weights for model\.layers\.1\.mlp\.up_proj\.weight"):
        located(write_llama(tmp_path / "m.gguf", *llama, tensors=lacking), tmp_path)
    with pytest.raises(UserError, match=r"m\.gguf.*another shape than its config says for model\.layers\.0\.mlp"):
        located(write_llama(tmp_path / "m.gguf", *llama, llama__feed_forward_length=256), tmp_path)
    with pytest.raises(UserError, match=r"loader does not load it \(StrictDataclass.*hidden size \(256\)"):
        located(write_llama(tmp_path / "m.gguf", *llama, llama__attention__head_count=3), tmp_path)
    with pytest.raises(UserError, match=r"m\.gguf has \d+ tokens and 1 of tokenizer\.ggml\.token_type"):
        located(write_llama(tmp_path / "m.gguf", *llama, tokenizer__ggml__token_type=[1]), tmp_path)
    tensors["blk.0.ffn_up.weight"] = np.full_like(tensors["blk.0.ffn_up.weight"], np.nan)
    with pytest.raises(UserError, match=r"m\.gguf: model\.layers\.0\.mlp\.up_proj\.weight holds NaN"):
        located(write_llama(tmp_path / "m.gguf", *llama, tensors=tensors), tmp_path)
