"""Vocabularies in files that are made here: what is read back from them, and what a real llama.cpp makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.models.gguf.gguf_header import read_gguf
from bitsure.models.gguf.vocabulary import load_gguf_tokenizer
from bitsure.models.gguf.write_gguf import write_gguf
from bitsure.models.gguf.written_vocabulary import vocabulary_metadata
from bitsure.models.load import load_model
from tests.builders.gguf_files import header, llama_tensors, write_llama
from tests.builders.llama_cpp import count_tokens
from tests.builders.marks import SHARED, library, needs_shared, needs_transformers_5
from tests.builders.tokenizers import sentencepiece_tokenizer

pytestmark = needs_transformers_5

TEXTS = ["The cat sat on the mat.", "the\n\n  dog 1984", "Größe: 5 µm — 日本語", "aaa  aa"]
SPACED = ["  the town", "over</s> the"]  # texts, or parts of them after special tokens, that begin with a space


@pytest.mark.parametrize("style", ["llama", "metaspace", "gemma"])
def test_a_sentencepiece_vocabulary_is_read_back(style, tmp_path):
    from gguf import GGMLQuantizationType

    tokenizer = sentencepiece_tokenizer(style)
    metadata = vocabulary_metadata(tokenizer, len(tokenizer) + 1)
    types, scores = metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.scores"]
    assert types[:4] == [2, 3, 3, 6] and types[-2:] == [1, 5] and metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.add_space_prefix"] is (style != "gemma") and max(scores) == 0 > scores[3]
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama", metadata, {"x": (np.zeros((1, 32), np.float32), GGMLQuantizationType.F32)})
    read = load_gguf_tokenizer(read_gguf(path))
    texts = TEXTS if style == "metaspace" else [*TEXTS, *SPACED]  # llama.cpp knows no such exception
    assert [read(text)["input_ids"] for text in texts] == [tokenizer(text)["input_ids"] for text in texts]


@needs_shared
def test_llama_cpp_cuts_text_as_the_models_tokenizer_does(tmp_path):
    """stories260K: a real model with a vocabulary of SentencePiece's."""
    library("xllamacpp")
    library("libgguf")
    model, tokenizer = load_model(SHARED / "hub/models/karpathy/stories260K", "float32")
    usual = {key.replace(".", "__"): None for key in header(model, tokenizer) if key.startswith("tokenizer.")}
    own = {key.replace(".", "__"): value for key, value in vocabulary_metadata(tokenizer, 512).items()}
    path = write_llama(tmp_path / "m.gguf", model, tokenizer, "F32", llama_tensors(model), **usual | own)
    read = load_gguf_tokenizer(read_gguf(path))
    expected = [tokenizer(text)["input_ids"] for text in (*TEXTS, *SPACED)]
    assert [read(text)["input_ids"] for text in (*TEXTS, *SPACED)] == expected
    assert count_tokens(path, [*TEXTS, *SPACED]) == [len(ids) for ids in expected]


def test_a_tokenizer_of_another_kind_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    with pytest.raises(UserError, match=r"of SentencePiece's with merges .*This model's tokenizer is another"):
        vocabulary_metadata(PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>"), 2)
