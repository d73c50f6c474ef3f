from __future__ import annotations

import logging
import math
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from bitsure import models
from bitsure.errors import UserError
from bitsure.scoring import engine, forward, rows
from bitsure.scoring.engine import Engine
from bitsure.scoring.journal import Journal


@pytest.fixture(scope="module")
def model(tiny_model):
    return models.load(tiny_model, "float32")[0]


def one_by_one(model, context, continuation):
    """The definition: log p(token | all before it), a forward pass for each continuation, nothing shared or padded."""
    ids = torch.tensor([context + continuation])
    with torch.no_grad():
        logprobs = model(ids).logits[0].log_softmax(-1)
    chosen = [logprobs[len(context) + i - 1, token].item() for i, token in enumerate(continuation)]
    greedy = all(logprobs[len(context) + i - 1].argmax() == token for i, token in enumerate(continuation))
    return chosen, greedy


def some_requests(n: int = 60, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(3, 250, (n,), generator=generator).tolist()  # noqa: E731
    shared = draw(9)
    requests = [(draw(1 + i % 17), draw(1 + i % 5)) for i in range(n)]
    return requests + [(shared, [token]) for token in (5, 6, 7)] + [(shared, [5, 6])]


@pytest.mark.parametrize("share", [True, False])
def test_scores_are_those_of_one_pass_each(model, share):
    requests, advanced = some_requests(), []
    found = Engine(model, 128, share).score(requests, advance=advanced.append)
    for (context, continuation), scored in zip(requests, found, strict=True):
        expected, greedy = one_by_one(model, context, continuation)
        assert scored.token_logprobs == pytest.approx(expected, abs=1e-4)
        assert scored.logprob == pytest.approx(sum(expected), abs=1e-3) and scored.greedy == greedy
    assert sum(advanced) == len(requests)


def test_the_likeliest_token_is_greedy(model):
    context = [10, 20, 30]
    with torch.no_grad():
        best = model(torch.tensor([context])).logits[0, -1].argmax().item()
    best_one, other = Engine(model, 128).score([(context, [best]), (context, [best - 1])])
    assert best_one.greedy and not other.greedy


def test_the_path_is_said(model, caplog):
    with caplog.at_level(logging.INFO):
        Engine(model, 128).score(some_requests())
        Engine(model, 128, share=False).score(some_requests())
    said = [record.getMessage() for record in caplog.records if "prefixes" in record.getMessage()]
    assert said == ["prefixes are shared", "prefixes are not shared: as asked for"]


def test_long_contexts_lose_their_beginning_with_one_warning(model, caplog):
    context = list(range(3, 153))
    with caplog.at_level(logging.WARNING):
        long, exact, _ = Engine(model, 15).score(
            [(context, [7, 8]), (context[-14:], [7, 8]), (context, [9])], "question {}".format
        )
    assert long.token_logprobs == pytest.approx(exact.token_logprobs, abs=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 inputs, the first of them question 0, were longer than 15 tokens and lost their beginning"
    ]


def test_a_continuation_longer_than_the_context_is_an_error_that_names_it(model):
    with pytest.raises(UserError, match=r"question 1: the choice alone has 20 tokens, the model's context 15"):
        Engine(model, 15).score([([5], [6]), ([5], [6] * 20)], "question {}".format)


def test_a_continuation_as_long_as_the_context_is_scored(model):
    [found] = Engine(model, 15).score([([5, 6, 7], [8] * 15)])
    assert found.token_logprobs == pytest.approx(one_by_one(model, [7], [8] * 15)[0], abs=1e-4)


def test_nothing_to_score_is_an_error(model):
    with pytest.raises(UserError, match=r"request 1: .*no tokens"):
        Engine(model, 15).score([([5], [6]), ([5], [])])


def test_batches_keep_to_the_budget(model, monkeypatch):
    shapes, real = [], forward.shared
    monkeypatch.setattr(
        forward, "shared", lambda m, batch, asked: shapes.append((len(batch), len(batch[0]))) or real(m, batch, asked)
    )
    scorer = Engine(model, 128)
    scorer.budget.tokens = 400
    scorer.budget.probed = True
    scorer.score(some_requests(400))
    shapes = shapes[1:]  # the first one is the check
    assert len(shapes) > 3 and all(rows == 1 or rows * width <= 400 for rows, width in shapes)


def test_the_plain_path_counts_logits_at_every_position(model, monkeypatch):
    shapes, real = [], forward.plain
    monkeypatch.setattr(
        forward, "plain", lambda m, batch, asked: shapes.append((len(batch), len(batch[0]))) or real(m, batch, asked)
    )
    scorer = Engine(model, 128, share=False)
    scorer.budget.tokens, scorer.budget.with_logits, scorer.budget.probed = 10_000, 50, True
    scorer.score(some_requests(60))
    assert all(rows_ == 1 or rows_ * width <= 50 for rows_, width in shapes)


def test_a_path_that_changes_numbers_ends_the_run(model, monkeypatch):
    real = forward.shared

    def wrong(*args):
        return {i: forward.Scored([p - 1e-3 for p in one.token_logprobs], one.greedy) for i, one in real(*args).items()}

    monkeypatch.setattr(forward, "shared", wrong)
    with pytest.raises(UserError, match=r"scoring\.share=false scores it plainly"):
        Engine(model, 128).score(some_requests())
    Engine(model, 128, share=False).score(some_requests(5))


@pytest.mark.parametrize("length", [50, 180, 400])
def test_the_check_has_branches_and_two_questions_and_stays_small(model, monkeypatch, length):
    seen, real = [], forward.plain
    monkeypatch.setattr(forward, "plain", lambda m, batch, asked: seen.append(asked) or real(m, batch, asked))
    scorer = Engine(model, 1024)
    requests = [([q] * length, [c, c]) for q in range(3, 20) for c in range(3)]
    scorer.score(requests)
    scorer.score(requests)
    asked = {i: one for found in seen for i, one in found.items()}.values()
    contexts = [tuple(context) for context, _ in asked]
    assert len(set(contexts)) == 2 and len(contexts) > len(set(contexts))
    tokens = sum(len(context) + len(continuation) - 1 for context, continuation in asked)
    assert tokens <= max(engine.CHECKED_TOKENS, 3 * (length + 1))


def test_the_check_sees_choices_that_see_each_other(model, monkeypatch):
    monkeypatch.setattr(rows.Row, "sees", lambda row: np.tri(len(row), dtype=bool))
    for length in (25, 180, 250):
        with pytest.raises(UserError, match=r"Scoring with shared prefixes gives"):
            Engine(model, 1024).score([([q] * length, [c, c + 1]) for q in range(3, 20) for c in range(3)])


def test_longer_inputs_are_checked_anew(model, monkeypatch):
    scorer, calls = Engine(model, 1024), []
    monkeypatch.setattr(scorer, "_check_sharing", lambda few: calls.append(len(few)))
    for length in (30, 40, 200, 210):
        scorer.score([([q] * length, [c, c]) for q in range(3, 9) for c in range(3)])
    assert len(calls) == 2


def test_many_requests_of_one_context_are_cut_into_rows(model, monkeypatch):
    widths, real = [], forward.shared
    monkeypatch.setattr(forward, "shared", lambda m, batch, asked: widths.append(len(batch[0])) or real(m, batch, asked))
    requests = [([2], [3 + i % 200, 5 + i % 7, 9] * 4) for i in range(600)]
    found = Engine(model, 128).score(requests)
    assert max(widths) <= 2048 and len(found) == 600
    assert found[37].token_logprobs == pytest.approx(one_by_one(model, *requests[37])[0], abs=1e-4)


def test_running_out_of_memory_makes_smaller_batches_and_loses_nothing(model, monkeypatch, caplog):
    requests, real = some_requests(200), forward.shared
    expected = Engine(model, 128).score(requests)

    def small(m, batch, asked):
        if len(batch) * len(batch[0]) > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return real(m, batch, asked)

    scorer = Engine(model, 128)
    scorer._checked_length = 10**6
    monkeypatch.setattr(forward, "shared", small)
    found = scorer.score(requests)
    for a, b in zip(found, expected, strict=True):
        assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-4)
    assert "out of memory" in caplog.text


def test_an_input_that_does_not_fit_at_all_is_an_error(model, monkeypatch):
    def none(m, batch, asked):
        raise MemoryError("none left")

    scorer = Engine(model, 128)
    scorer._checked_length = 10**6
    monkeypatch.setattr(forward, "shared", none)
    with pytest.raises(UserError, match=r"One input of .* tokens does not fit in the memory that is left"):
        scorer.score(some_requests())


def test_other_errors_are_not_swallowed(model, monkeypatch):
    def broken(m, batch, asked):
        raise RuntimeError("shapes cannot be multiplied")

    scorer = Engine(model, 128)
    scorer._checked_length = 10**6
    monkeypatch.setattr(forward, "shared", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        scorer.score(some_requests())


def test_a_value_that_is_not_finite_names_the_question_and_the_layer(tiny_model):
    broken = models.load(tiny_model, "float32")[0]
    with torch.no_grad():
        broken.model.decoder.layers[0].fc2.bias[0] = math.inf
    for share in (True, False):
        with pytest.raises(
            UserError, match=r"question \d+: a log-probability is nan.*first layer .* model.decoder.layers.0.fc2"
        ):
            Engine(broken, 128, share).score(some_requests(), "question {}".format)


def broken_off(engine: Engine, requests, path, monkeypatch, after: int) -> None:
    """Score until so many batches are done, then be killed."""
    real, batches = forward.shared, 0

    def killed(m, batch, asked):
        nonlocal batches
        batches += 1
        if batches > after:
            raise KeyboardInterrupt
        return real(m, batch, asked)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forward, "shared", killed)
        engine.score(requests, journal=Journal(path))


@pytest.mark.parametrize("damage", [None, "cut", "edit"])
def test_what_the_journal_has_is_not_scored_again_and_the_rest_is_the_same_to_the_last_bit(
    model, tmp_path, monkeypatch, damage
):
    requests, path = some_requests(300), tmp_path / "j.jsonl"

    def ready(tokens: int) -> Engine:
        engine = limited(Engine(model, 128), tokens)
        engine._checked_length = 10**6
        return engine

    whole = ready(400).score(requests)
    broken_off(ready(400), requests, path, monkeypatch, after=4)
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-30])
        case "edit":  # a choice in the middle of the first batch
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join([*lines[:3], "x" + lines[3][1:], *lines[4:]]))
    journal, advanced, ran, real = Journal(path), [], [], forward.shared
    before = len(journal)
    assert 0 < before < len(requests)
    monkeypatch.setattr(forward, "shared", lambda m, batch, asked: ran.append(batch) or real(m, batch, asked))
    found = ready(1024).score(requests, advance=advanced.append, journal=journal)  # it could do larger batches, but does not
    assert found == whole
    assert advanced[0] >= before and sum(advanced) == len(requests)
    scored_again = sum(len(row.scored) for batch in ran for row in batch)
    assert scored_again == len(requests) - before if damage is None else scored_again > len(requests) - before
    assert all(Journal(path).get(request) == one for request, one in zip(requests, found, strict=True))


def test_batches_made_smaller_by_a_shortage_are_made_again_without_one(model, tmp_path, monkeypatch):
    requests, real, runs = some_requests(300), forward.shared, 0

    def short(m, batch, asked):
        nonlocal runs
        runs += 1
        if runs in (3, 4):
            raise MemoryError
        return real(m, batch, asked)

    def scored(path, function):
        engine = limited(Engine(model, 128), 400)
        engine._checked_length = 10**6
        with monkeypatch.context() as patch:
            patch.setattr(forward, "shared", function)
            return engine.score(requests, journal=Journal(path))

    whole = scored(tmp_path / "a.jsonl", short)
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    assert sum('"lower"' in line for line in lines) == 2
    (tmp_path / "b.jsonl").write_text("".join(lines[: len(lines) * 2 // 3]))
    assert scored(tmp_path / "b.jsonl", real) == whole


def test_numbers_do_not_depend_on_what_was_scored_before(model):
    requests = some_requests(100)
    engine = Engine(model, 128)
    engine.score(some_requests(200, seed=2))
    assert engine.score(requests) == Engine(model, 128).score(requests)


def test_equal_requests_are_scored_once(model, monkeypatch):
    asked, real, advanced = [], forward.shared, []
    engine = Engine(model, 128)
    engine.limits()
    monkeypatch.setattr(forward, "shared", lambda m, batch, all_: asked.extend(batch) or real(m, batch, all_))
    engine._checked_length = 10**6
    found = engine.score([*some_requests(20), *some_requests(20)], advance=advanced.append)
    assert found[:24] == found[24:] and sum(len(row.scored) for row in asked) == 24 and sum(advanced) == 48


def limited(engine: Engine, tokens: int) -> Engine:
    engine.budget.tokens, engine.budget.probed = tokens, True
    return engine


SCARCE = """
import resource, sys, torch
from transformers import OPTConfig, OPTForCausalLM
from bitsure.scoring.engine import Engine
torch.manual_seed(0); torch.set_num_threads(1)
config = OPTConfig(vocab_size=50_000, hidden_size=64, word_embed_proj_dim=64, ffn_dim=8192, num_hidden_layers=2,
                   num_attention_heads=2, max_position_embeddings=512)
model = OPTForCausalLM(config).eval()
requests = [([3 + q] * 20, [c] * 30) for q in range(60) for c in range(4)]  # some 8,000 tokens, 270 MB in the feed-forward
expected = Engine(model, 512).score(requests)
engine = Engine(model, 512)
engine.budget.tokens, engine.budget.with_logits, engine.budget.probed = 100_000, 100_000, True
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
found = engine.score(requests)
assert max(abs(a.logprob - b.logprob) for a, b in zip(found, expected)) < 1e-3
print("left", engine.budget.tokens)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="needs a limit on address space")
def test_real_shortage_of_memory_is_survived():
    done = subprocess.run([sys.executable, "-c", SCARCE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "out of memory with a batch of" in done.stderr and 0 < int(done.stdout.split()[-1]) < 100_000
