"""Batches keep to what the memory takes; scoring that was broken off goes on and ends the same, to the last bit."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from bitsure.base.errors import UserError
from bitsure.scoring.journal import Journal
from bitsure.scoring.local import forward
from bitsure.scoring.local.local_engine import LocalEngine
from tests.builders.requests import some_requests
from tests.builders.stopped_runs import MOST


def test_batches_keep_to_the_budget(model, monkeypatch):
    shapes, real = [], forward.score_trees
    monkeypatch.setattr(
        forward, "score_trees", lambda m, batch, asked: shapes.append((len(batch), len(batch[0]))) or real(m, batch, asked)
    )
    scorer = LocalEngine(model, 128)
    scorer.budget.tokens = 400
    scorer.budget.probed = True
    scorer.score(some_requests(400))
    shapes = shapes[1:]  # the first one is the check
    assert len(shapes) > 3 and all(rows == 1 or rows * width <= 400 for rows, width in shapes)


def test_the_plain_path_counts_logits_at_every_position(model, monkeypatch):
    shapes, real = [], forward.score_plain
    monkeypatch.setattr(
        forward, "score_plain", lambda m, batch, asked: shapes.append((len(batch), len(batch[0]))) or real(m, batch, asked)
    )
    scorer = LocalEngine(model, 128, share=False)
    scorer.budget.tokens, scorer.budget.with_logits, scorer.budget.probed = 10_000, 50, True
    scorer.score(some_requests(60))
    assert all(rows_ == 1 or rows_ * width <= 50 for rows_, width in shapes)


def test_running_out_of_memory_makes_smaller_batches_and_loses_nothing(model, monkeypatch, caplog):
    requests, real = some_requests(200), forward.score_trees
    expected = LocalEngine(model, 128).score(requests)

    def small(m, batch, asked):
        if len(batch) * len(batch[0]) > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return real(m, batch, asked)

    scorer = LocalEngine(model, 128)
    scorer._choice._checked_length["trees"] = 10**6
    monkeypatch.setattr(forward, "score_trees", small)
    results = scorer.score(requests)
    for a, b in zip(results, expected, strict=True):
        assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-4)
    assert "out of memory" in caplog.text


def test_an_input_that_does_not_fit_at_all_is_an_error(model, monkeypatch):
    def none(m, batch, asked):
        raise MemoryError("none left")

    scorer = LocalEngine(model, 128)
    scorer._choice._checked_length["trees"] = 10**6
    monkeypatch.setattr(forward, "score_trees", none)
    with pytest.raises(UserError, match=r"One input of .* tokens does not fit in the memory that is left"):
        scorer.score(some_requests())


def test_other_errors_are_not_swallowed(model, monkeypatch):
    def broken(m, batch, asked):
        raise RuntimeError("shapes cannot be multiplied")

    scorer = LocalEngine(model, 128)
    scorer._choice._checked_length["trees"] = 10**6
    monkeypatch.setattr(forward, "score_trees", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        scorer.score(some_requests())


def limited(engine: LocalEngine, tokens: int) -> LocalEngine:
    engine.budget.tokens, engine.budget.probed = tokens, True
    return engine


def broken_off(engine: LocalEngine, requests, path, monkeypatch, after: int) -> None:
    """Score until so many batches are done, then be killed."""
    real, batches = forward.score_trees, 0

    def killed(m, batch, asked):
        nonlocal batches
        batches += 1
        if batches > after:
            raise KeyboardInterrupt
        return real(m, batch, asked)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forward, "score_trees", killed)
        engine.score(requests, journal=Journal(path))


@pytest.mark.parametrize("damage", [None, "cut", "edit"])
def test_what_the_journal_has_is_not_scored_again_and_the_rest_is_the_same_to_the_last_bit(
    model, tmp_path, monkeypatch, damage
):
    requests, path = some_requests(300), tmp_path / "j.jsonl"

    def ready(tokens: int) -> LocalEngine:
        engine = limited(LocalEngine(model, 128), tokens)
        engine._choice._checked_length["trees"] = 10**6
        return engine

    whole = ready(400).score(requests)
    broken_off(ready(400), requests, path, monkeypatch, after=4)
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-30])
        case "edit":  # a choice in the middle of the first batch
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join([*lines[:3], "x" + lines[3][1:], *lines[4:]]))
    journal, advanced, ran, real = Journal(path), [], [], forward.score_trees
    before = len(journal)
    assert 0 < before < len(requests)
    monkeypatch.setattr(forward, "score_trees", lambda m, batch, asked: ran.append(batch) or real(m, batch, asked))
    results = ready(1024).score(requests, advance=advanced.append, journal=journal)  # it could do larger batches, but does not
    assert results == whole
    assert advanced[0] >= before and sum(advanced) == len(requests)
    scored_again = sum(len(row.scored) for batch in ran for row in batch)
    assert scored_again == len(requests) - before if damage is None else scored_again > len(requests) - before
    assert all(Journal(path).get(request) == one for request, one in zip(requests, results, strict=True))


def test_batches_made_smaller_by_a_shortage_are_made_again_without_one(model, tmp_path, monkeypatch):
    requests, real, runs = some_requests(300), forward.score_trees, 0

    def short(m, batch, asked):
        nonlocal runs
        runs += 1
        if runs in (3, 4):
            raise MemoryError
        return real(m, batch, asked)

    def scored(path, function):
        engine = limited(LocalEngine(model, 128), 400)
        engine._choice._checked_length["trees"] = 10**6
        with monkeypatch.context() as patch:
            patch.setattr(forward, "score_trees", function)
            return engine.score(requests, journal=Journal(path))

    whole = scored(tmp_path / "a.jsonl", short)
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    assert sum('"lower"' in line for line in lines) == 2
    (tmp_path / "b.jsonl").write_text("".join(lines[: len(lines) * 2 // 3]))
    assert scored(tmp_path / "b.jsonl", real) == whole


SCARCE = """
import resource, sys, torch
from transformers import OPTConfig, OPTForCausalLM
from bitsure.scoring.local.local_engine import LocalEngine
torch.manual_seed(0); torch.set_num_threads(1)
config = OPTConfig(vocab_size=1_000, hidden_size=64, word_embed_proj_dim=64, ffn_dim=8192, num_hidden_layers=2,
                   num_attention_heads=2, max_position_embeddings=512)
model = OPTForCausalLM(config).eval()
requests = [([3 + q] * 20, [c] * 30) for q in range(60) for c in range(4)]  # some 8,000 tokens, 270 MB in the feed-forward
expected = LocalEngine(model, 512).score(requests)
engine = LocalEngine(model, 512)
engine.budget.tokens, engine.budget.with_logits, engine.budget.probed = 100_000, 100_000, True
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
results = engine.score(requests)
assert max(abs(a.logprob - b.logprob) for a, b in zip(results, expected)) < 1e-3
print("left", engine.budget.tokens)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="needs a limit on address space")
def test_real_shortage_of_memory_is_survived():
    done = subprocess.run([sys.executable, "-c", SCARCE], capture_output=True, text=True, timeout=MOST)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "out of memory with a batch of" in done.stderr and 0 < int(done.stdout.split()[-1]) < 100_000
