"""Tokenizers of GGUF files: as the model's own cuts text, and compared with a parent's."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.models.gguf.gguf_header import read_gguf
from bitsure.models.gguf.vocabulary import check_same_tokenizer, load_gguf_tokenizer, unknown_splitting
from bitsure.models.tokenizers import load_tokenizer
from tests.builders.gguf_files import header, write_llama

TEXTS = ["the quick brown fox", " It rained 1234 times — in the town.\n", "a</s>b", ""]


@pytest.fixture(scope="module")
def llama(tiny_llama):
    """The model, its tokenizer, and what a GGUF file of it has in its header."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama), load_tokenizer(tiny_llama)


@pytest.fixture
def file_with(llama, tmp_path):
    def write(**metadata):
        return read_gguf(write_llama(tmp_path / "m.gguf", *llama, tensors={}, **metadata))

    return write


def test_text_is_cut_as_by_the_models_own_tokenizer_and_no_token_is_added(llama, file_with, tmp_path):
    own = llama[1]
    read = load_gguf_tokenizer(file_with())
    read.save_pretrained(tmp_path / "saved")
    for tokenizer in (read, load_tokenizer(tmp_path / "saved")):
        assert [tokenizer(text)["input_ids"] for text in TEXTS] == [own(text)["input_ids"] for text in TEXTS]
        assert tokenizer.get_vocab() == own.get_vocab()
        assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("</s>", "</s>", None)


@pytest.mark.parametrize(
    ("flag", "rule", "begins"),
    [(True, "gpt-2", True), (False, "llama-bpe", False), (None, "llama-bpe", True), (None, "qwen2", False)],
)
def test_texts_begin_with_bos_as_the_file_says_or_llama_cpp_does_without_a_word(file_with, flag, rule, begins):
    read = load_gguf_tokenizer(file_with(tokenizer__ggml__add_bos_token=flag, tokenizer__ggml__pre=rule))
    assert (read("the")["input_ids"][0] == read.bos_token_id) == begins


def test_smollms_digits_stand_alone(llama, file_with):
    texts = {id_: text for text, id_ in llama[1].get_vocab().items()}
    merges = [*header(*llama)["tokenizer.ggml.merges"], "1 2"]
    words = [texts[id_] for id_ in range(len(texts))] + ["12"]
    both = {"tokenizer__ggml__tokens": words, "tokenizer__ggml__merges": merges}
    both |= {"tokenizer__ggml__token_type": [1] * len(words)}
    assert len(load_gguf_tokenizer(file_with(**both))("12")["input_ids"]) == 1
    assert len(load_gguf_tokenizer(file_with(**both, tokenizer__ggml__pre="smollm"))("12")["input_ids"]) == 2


def test_a_rule_that_is_not_known_is_named(file_with):
    assert unknown_splitting(file_with(tokenizer__ggml__pre="falcon")) == "falcon"
    assert unknown_splitting(file_with(tokenizer__ggml__pre=None)) == "default"
    assert unknown_splitting(file_with(tokenizer__ggml__pre="qwen2")) is None


@pytest.mark.parametrize("vocabulary", [None, [1, 2], "words"])
def test_a_file_without_a_vocabulary_is_refused(file_with, vocabulary):
    with pytest.raises(UserError, match=r"m\.gguf has no vocabulary \(tokenizer\.ggml\.tokens\)"):
        load_gguf_tokenizer(file_with(tokenizer__ggml__tokens=vocabulary))


def test_a_kind_of_vocabulary_that_transformers_does_not_know(file_with):
    with pytest.raises(UserError, match=r"m\.gguf: transformers makes no tokenizer of its vocabulary .*rwkv"):
        load_gguf_tokenizer(file_with(tokenizer__ggml__model="rwkv"))


def test_another_tokenizer_than_the_parents_is_refused_by_its_first_difference(llama, file_with, caplog):
    own, given = llama[1], header(*llama)
    words, merges = given["tokenizer.ggml.tokens"], given["tokenizer.ggml.merges"]
    check_same_tokenizer(file_with(), own, "parent")
    check_same_tokenizer(file_with(tokenizer__ggml__tokens=[*words, "[PAD288]"]), own, "parent")  # rows that no id uses
    assert caplog.text == ""
    check_same_tokenizer(file_with(tokenizer__ggml__eos_token_id=1), own, "parent")
    assert "its eos token is 1; that of parent, 2, counts" in caplog.text
    differ = "m.gguf: its tokenizer is not that of parent: "
    for metadata, reason in (
        ({"tokenizer__ggml__tokens": words[:-1]}, "it has 287 tokens, and ids up to 287 are used here"),
        ({"tokenizer__ggml__tokens": [*words[:5], "other", *words[6:]]}, "the token 5 is 'other' there and '#' here"),
        (
            {"tokenizer__ggml__merges": [merges[1], merges[0], *merges[2:]]},
            f"the merge 0 is {merges[1]!r} there and {merges[0]!r}",
        ),
        ({"tokenizer__ggml__merges": merges[:-1]}, f"the merge {len(merges) - 1} is None there and {merges[-1]!r} here"),
    ):
        with pytest.raises(UserError) as refused:
            check_same_tokenizer(file_with(**metadata), own, "parent")
        assert differ + reason in str(refused.value)
