"""GGUF files of Gemma 2 and 3: what is read back from them, and what a real llama.cpp computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.models.gguf.gemma import attention_scalar
from bitsure.models.gguf.write_gguf import model_metadata
from bitsure.models.locate import locate_model
from bitsure.quantize.check import check_plan
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.libraries.llama_cpp import LlamaCpp
from bitsure.quantize.make import ensure_quantized
from tests.builders.families import GROUPED, build
from tests.builders.gguf_files import write_decoded
from tests.builders.llama_cpp import token_logprobs
from tests.builders.marks import library, needs_transformers_5
from tests.builders.plans import plan
from tests.builders.tokenizers import sentencepiece_tokenizer

pytestmark = needs_transformers_5
library("libgguf")

TEXT = "the cat sat on the mat while it rained in the town."
SETTINGS = GROUPED | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8, "vocab_size": 320}
POSITIONS = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},  # as from 4B on
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
OWN = {"gemma2": {}, "gemma3_text": {"num_hidden_layers": 7, "rope_parameters": POSITIONS}}


@pytest.mark.parametrize("family", OWN)
def test_what_is_written_is_what_is_scored_and_what_llama_cpp_computes(family, calib_file, tmp_path, caplog):
    """Norms hold one more in the file; windows are shorter than the text, and some blocks have none."""
    library("xllamacpp")
    tokenizer = sentencepiece_tokenizer("gemma")
    model = build(family, **SETTINGS | OWN[family])
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / family)
    tokenizer.save_pretrained(tmp_path / family)
    planned = plan(tmp_path / family, LlamaCpp("q8_0"), calib_file)
    check_plan(planned, Store(tmp_path))
    result = ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")
    put_into(model, result.checkpoint)
    alone, own = locate_model(ModelSettings(path=str(result.shipped)), None, Store(tmp_path / "store")).load("float32")
    assert "llama.cpp" not in caplog.text  # nothing that transformers' loader leaves out
    ids = tokenizer(TEXT)["input_ids"]
    assert own(TEXT)["input_ids"] == ids and len(ids) > 2 * SETTINGS["sliding_window"]
    with torch.no_grad():
        scored, read = (
            torch.log_softmax(m(torch.tensor([ids])).logits[0].double(), -1)[range(len(ids) - 1), ids[1:]].numpy()
            for m in (model, alone)
        )
    decoded = write_decoded(result.shipped, tmp_path / "decoded.gguf")
    theirs = np.array(token_logprobs(decoded, ids, SETTINGS["vocab_size"], tokenizer.convert_tokens_to_ids("a")))
    assert np.abs(read - scored).max() < 1e-4
    assert np.abs(theirs - scored).max() < 0.01  # llama.cpp looks up its GELU in half precision


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("gemma3_text", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar=32"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 7}, "full attention in every block of number 6"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "no attn_logit_softcapping and no final_logit_softcapping"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "attention to earlier tokens alone"),
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping and final_logit_softcapping"),
        ("gemma2", {"hidden_activation": "silu"}, "written with the activation gelu_pytorch_tanh"),
    ],
)
def test_settings_that_llama_cpp_does_not_compute_are_refused(family, settings, message):
    config = AutoConfig.for_model(family, **SETTINGS | OWN[family] | settings)
    with pytest.raises(UserError, match=message):
        model_metadata(config)


def test_yarn_would_be_in_all_blocks():
    positions = copy.deepcopy(POSITIONS)
    positions["full_attention"] |= {"rope_type": "yarn", "original_max_position_embeddings": 64}
    config = AutoConfig.for_model("gemma3_text", **SETTINGS | OWN["gemma3_text"] | {"rope_parameters": positions})
    with pytest.raises(UserError, match="not of Gemma 3"):
        model_metadata(config)


def test_attention_of_27b_is_scaled_by_its_width():
    config = AutoConfig.for_model(
        "gemma3_text", num_hidden_layers=62, hidden_size=5376, num_attention_heads=32, num_key_value_heads=16, head_dim=128
    )
    assert attention_scalar("gemma3", config) == 168
