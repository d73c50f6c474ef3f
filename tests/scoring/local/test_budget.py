from __future__ import annotations

import logging

import pytest
import torch

from bitsure.scoring.local import budget
from bitsure.scoring.local.budget import Budget

CPU = torch.device("cpu")


def test_a_batch_decides_by_memory_and_by_time(monkeypatch, caplog):
    clock = iter((0.0, 10.0))
    monkeypatch.setattr(budget, "free_memory", lambda device: 10**12)
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(clock))
    slow = Budget(CPU, 1000)
    with slow.measure(512):  # 10 s for 512 tokens: 20 s for 1,024
        pass
    assert slow.tokens == 1024 and slow.probed


@pytest.mark.parametrize(("seconds", "tokens"), [(10.1, 512), (6.0, 1024), (19.9, 512), (1e-6, 2048)])
def test_batches_are_powers_of_two_so_that_a_slower_minute_mostly_changes_nothing(monkeypatch, seconds, tokens):
    clock = iter((0.0, seconds))
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(clock))
    one = Budget(CPU, 1000)
    with one.measure(512):
        pass
    assert one.tokens == tokens


def test_little_free_memory_makes_small_batches(monkeypatch):
    monkeypatch.setattr(budget, "free_memory", lambda device: 64 * 2**20)
    tight = Budget(CPU, 1000)
    with tight.measure(256):
        torch.zeros(16 * 2**20, dtype=torch.float32).fill_(1)  # 64 MB for 256 tokens; half of 64 MB is to be had
    assert tight.tokens in (64, 128)


def test_shrinking_halves_what_did_not_fit(caplog):
    one = Budget(CPU, 1000)
    with caplog.at_level(logging.WARNING):
        assert one.shrink(400) == 200
    assert one.tokens == 200
    assert "out of memory with a batch of 400 tokens" in caplog.text


def test_shrinking_never_grows():
    one = Budget(CPU, 1000)
    assert one.shrink(9000) == 4500 and one.tokens == budget.PROBE_TOKENS


def test_a_large_vocabulary_limits_the_tokens_of_a_plain_batch():
    assert Budget(CPU, 250_000).with_logits == 134
