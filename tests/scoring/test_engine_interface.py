"""What every engine gets from the interface, with one that only counts."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from lm_eval.models.huggingface import HFLM

from bitsure.base.errors import UserError
from bitsure.scoring.engine import Engine
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.requests import Scored
from tests.builders.engines import hooked_lm
from tests.builders.tokenizers import byte_tokenizer


class LengthEngine(Engine):
    """Every token has log-probability −(length of the context); a context of one token gives NaN. Batches of two requests."""

    parameters = 10

    def __init__(self, max_length=8):
        super().__init__(max_length)
        self.batches = []

    def limits(self):
        return Limits(2, 2)

    def run(self, requests, journal, known):
        numbers = sorted(requests)
        for start in range(0, len(numbers), 2):
            batch = numbers[start : start + 2]
            if not set(batch) <= known.keys():
                self.batches.append(batch)
                yield {i: self.scored(*requests[i]) for i in batch}

    def scored(self, context, continuation):
        return Scored([math.nan if len(context) == 1 else -len(context)] * len(continuation), False)

    def broken_layer(self, request):
        return "layer 3"


def test_equal_requests_are_run_once_and_answered_in_their_order():
    engine, advanced = LengthEngine(), []
    results = engine.score([([1, 2], [3]), ([1, 2, 3], [4, 5]), ([1, 2], [3])], advance=advanced.append)
    assert [result.logprob for result in results] == [-2, -6, -2]
    assert engine.batches == [[0, 1]] and sum(advanced) == 3


def test_a_context_that_is_too_long_loses_its_beginning():
    [result] = LengthEngine(max_length=8).score([(list(range(20)), [1, 2, 3])])
    assert result.token_logprobs == [-6, -6, -6]  # the last token of the continuation is not read


def test_the_journal_has_what_was_scored_and_skips_batches_of_which_all_is_known(tmp_path):
    requests = [([1] * n, [2]) for n in range(2, 7)]
    first = LengthEngine()
    expected = first.score(requests, journal=Journal(tmp_path / "journal"))
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    (tmp_path / "journal").write_text("".join(lines[:4]))  # limits and three requests
    resumed = LengthEngine()
    assert resumed.score(requests, journal=Journal(tmp_path / "journal")) == expected
    assert (first.batches, resumed.batches) == ([[0, 1], [2, 3], [4]], [[2, 3], [4]])


def test_a_number_that_is_not_finite_is_an_error_with_the_request_and_the_layer():
    with pytest.raises(UserError, match=r"question 1: a log-probability is nan: .* first layer with such a value is layer 3"):
        LengthEngine().score([([1, 2], [3]), ([1], [3])], "question {}".format)


def test_the_interface_needs_no_torch():
    program = "import sys, bitsure.scoring.engine, bitsure.scoring.scorer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_texts_that_are_asked_for_next_are_tokenized_in_one_call(model, monkeypatch):
    lm, calls = hooked_lm(model, byte_tokenizer()), []
    encode_all = lm._texts._encode_all
    monkeypatch.setattr(lm._texts, "_encode_all", lambda texts: calls.append(texts) or encode_all(texts))
    texts = ["a context and one", "a context", "a context and two", "a context", "<s> begun"]
    lm._texts.expect(texts)
    tokens = [lm.tok_encode(text) for text in texts]
    assert tokens == [HFLM.tok_encode(lm, text) for text in texts] and calls == [list(dict.fromkeys(texts))]
    tokens[1].append(0)  # each caller has a list of its own
    assert lm.tok_encode("a context") == tokens[3] and lm.tok_encode("a context", add_special_tokens=True)
    assert lm.tok_encode("another text") == HFLM.tok_encode(lm, "another text")
