"""Each protocol against a few lines that do what its source does, written down independently."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.config.text import PROTOCOLS
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.scoring.texts.text_protocol import TextProtocol, WindowSettings, make_protocol
from tests.builders.texts import DOCUMENTS, text_settings, write_documents
from tests.builders.tokenizers import byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def with_bos():
    """A tokenizer that begins every text with BOS."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", bos)])
    return tokenizer


def cut(folder, tokenizer, protocol, window, documents=DOCUMENTS, **changes):
    settings = text_settings(write_documents(folder, documents), protocol)
    text = locate_text_file(settings, None).read()
    return make_protocol(settings).cut(text, tokenizer, WindowSettings(window, **changes))


def pairs(tokenized):
    """Each window as what is read and what is scored."""
    return [(w.tokens[: w.first_scored].tolist(), w.scored.tolist()) for w in tokenized.windows]


def test_gptq_cuts_the_joined_text_and_drops_first_tokens_and_the_tail(tokenizer, tmp_path):
    ids = tokenizer("\n\n".join(DOCUMENTS), add_special_tokens=False)["input_ids"]
    expected = [(ids[i * 64 : i * 64 + 1], ids[i * 64 + 1 : (i + 1) * 64]) for i in range(len(ids) // 64)]
    assert pairs(cut(tmp_path, tokenizer, "gptq", 64)) == expected
    assert len(ids) % 64


def test_gptq_s_multiplication_by_the_window_cancels():
    losses = np.random.default_rng(0).random((5, 63))  # 5 windows of 64 tokens
    nlls = [window.mean() * 64 for window in losses]
    assert math.exp(sum(nlls) / (5 * 64)) == pytest.approx(math.exp(losses.mean()), rel=1e-14)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_llamacpp_scores_second_halves_after_bos_in_place_of_a_token(tokenizer, with_bos, tmp_path, adds_bos):
    used, bos, n_ctx = with_bos if adds_bos else tokenizer, tokenizer.bos_token_id, 32
    text = "the quick brown fox jumps over the lazy dog.\n" * 20
    tokens = [bos] * adds_bos + tokenizer(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
    expected = []
    for i in range(len(tokens) // n_ctx):  # perplexity.cpp
        chunk = tokens[i * n_ctx : (i + 1) * n_ctx]
        if adds_bos:
            chunk[0] = bos
        first = n_ctx // 2
        expected.append((chunk[: first + 1], chunk[first + 1 :]))
    tokenized = cut(tmp_path, used, "llamacpp", n_ctx, [text])
    assert pairs(tokenized) == expected
    assert ("in place of" in tokenized.bos) == adds_bos


def test_llamacpp_drops_one_newline_at_the_end_and_no_more(tokenizer, tmp_path):
    text = "a b\n" * 40 + "\n"
    ids = tokenizer(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
    windows = cut(tmp_path, tokenizer, "llamacpp", len(ids) // 2, [text]).windows
    assert windows[-1].tokens.tolist() == ids[len(ids) // 2 : 2 * (len(ids) // 2)]


def test_harness_windows_are_those_of_loglikelihood_rolling(tokenizer, tmp_path):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    expected = []
    for document in DOCUMENTS:
        ids = tokenizer(document, add_special_tokens=False)["input_ids"]
        expected += map(make_disjoint_window, get_rolling_token_windows(ids, tokenizer.bos_token_id, 32, 1))
    assert pairs(cut(tmp_path, tokenizer, "harness", 32)) == expected


def test_the_harness_does_not_score_a_bos_that_the_tokenizer_puts_before_a_text(tokenizer, with_bos, tmp_path):
    bos, ids = tokenizer.bos_token_id, tokenizer(DOCUMENTS[0], add_special_tokens=False)["input_ids"]
    first = cut(tmp_path, with_bos, "harness", 32, DOCUMENTS[:1]).windows[0]
    assert (first.tokens[: first.first_scored].tolist(), first.scored.tolist()) == ([bos], ids[:31])


def test_strided_windows_are_those_of_transformers_guide(tokenizer, tmp_path):
    ids, max_length, stride = tokenizer("\n\n".join(DOCUMENTS))["input_ids"], 48, 20
    expected, prev_end_loc = [], 0
    for begin_loc in range(0, len(ids), stride):
        end_loc = min(begin_loc + max_length, len(ids))
        trg_len = end_loc - prev_end_loc
        inputs = ids[begin_loc:end_loc]
        scored = max(1, len(inputs) - trg_len)  # the model shifts labels: a window's first token is never predicted
        expected.append((inputs[:scored], inputs[scored:]))
        prev_end_loc = end_loc
        if end_loc == len(ids):
            break
    tokenized = cut(tmp_path, tokenizer, "strided", max_length, stride=stride)
    assert pairs(tokenized) == expected
    assert tokenized.n_scored == len(ids) - 1


def test_the_bytes_of_scored_tokens_are_the_text_s(tokenizer, tmp_path):
    tokenized = cut(tmp_path, tokenizer, "harness", 32)
    by_document = np.zeros(len(DOCUMENTS), dtype=int)
    for window in tokenized.windows:
        np.add.at(by_document, window.documents, window.n_bytes)
    assert by_document.tolist() == [len(document.encode()) for document in DOCUMENTS]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scored_tokens_have_a_document_and_one_place_in_it(tokenizer, tmp_path, protocol):
    tokenized = cut(tmp_path, tokenizer, protocol, 32)
    places = [(d, p) for w in tokenized.windows for d, p in zip(w.documents.tolist(), w.positions.tolist(), strict=True)]
    assert len(set(places)) == len(places) == tokenized.n_scored
    assert {document for document, _ in places} == {0, 1, 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_limit_takes_the_first_tokens(tokenizer, tmp_path, protocol):
    whole, limited = (cut(tmp_path, tokenizer, protocol, 32, limit=limit) for limit in (None, 96))
    assert pairs(limited)[:-1] == pairs(whole)[: len(limited.windows) - 1]
    assert sum(len(window.scored) for window in limited.windows) <= 96 < whole.n_scored


def test_lines_of_a_data_set_are_documents_by_their_headings(tokenizer, tmp_path):
    rows = ["", " = One = \n", "", " first . \n", " = = Part = = \n", " = Two = \n", "", " second . \n"]
    settings = text_settings(write_documents(tmp_path, rows), document_start=" = [^=]+ = $")
    text = locate_text_file(settings, None).read()
    assert text.documents == [" \n = One = \n \n first . \n = = Part = = \n", " = Two = \n \n second . \n"]
    assert text.document_of_part.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


class MyProtocol(TextProtocol):
    def cut(self, text, tokenizer, settings):
        return make_protocol(text_settings(text.place.split(": ")[1])).cut(text, tokenizer, settings)


def test_a_protocol_of_one_s_own_is_named_by_its_class(tmp_path):
    path = write_documents(tmp_path)
    assert isinstance(make_protocol(text_settings(path, f"{__name__}.MyProtocol")), MyProtocol)
    with pytest.raises(UserError, match=r"a class is needed that derives from .*TextProtocol"):
        make_protocol(text_settings(path, "json.JSONDecoder"))


@pytest.mark.parametrize(
    ("protocol", "needed"), [("gptq", "64"), ("llamacpp", "128")], ids=["one window", "two windows, as the tool asks for"]
)
def test_a_text_shorter_than_its_windows_is_refused(tokenizer, tmp_path, protocol, needed):
    with pytest.raises(UserError, match=rf"text.jsonl has \d+ tokens, and .*text.window=64, needs {needed}. Give a longer"):
        cut(tmp_path, tokenizer, protocol, 64, ["short"])


def test_a_text_without_bos_and_eos_is_refused_by_the_harness_protocol(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither BOS nor EOS"):
        cut(tmp_path, tokenizer, "harness", 32)
    for protocol in PROTOCOLS:
        with pytest.raises(UserError, match=r"text.add_bos=true: this model's tokenizer has no BOS"):
            cut(tmp_path, tokenizer, protocol, 32, add_bos=True)
