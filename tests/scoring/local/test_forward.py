"""Trees against the plain path, family by family, on small random models."""

from __future__ import annotations

import pytest
import torch

from bitsure.scoring.local import forward, head, rows
from bitsure.scoring.local.pass_choice import TOLERANCE
from bitsure.scoring.local.trial import why_no_trees
from tests.builders.families import FALCON, FAMILIES, GROUPED, build
from tests.builders.marks import library
from tests.builders.requests import branching_questions, lay_out


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_give_the_plain_numbers(family):
    model, requests = build(family, **FAMILIES[family]), branching_questions()
    assert why_no_trees(model, 120) is None
    shared = forward.score_trees(model, lay_out(requests), requests)
    for row in rows.chains(requests):
        for number, expected in forward.score_plain(model, [row], requests).items():
            assert shared[number].token_logprobs == pytest.approx(expected.token_logprobs, abs=2e-5)
            assert shared[number].greedy == expected.greedy
    assert min(min(one.token_logprobs) for one in shared.values()) < -5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_to_its_tolerance(dtype):
    absolute, relative = TOLERANCE[str(dtype).removeprefix("torch.")]
    model, requests = build("llama", **GROUPED).to(dtype), branching_questions()
    shared, plain = (
        run(model, lay(requests), requests) for run, lay in ((forward.score_trees, lay_out), (forward.score_plain, rows.chains))
    )
    assert all(abs(shared[i].logprob - plain[i].logprob) <= absolute + relative * abs(plain[i].logprob) for i in plain)


@pytest.mark.parametrize(
    "family, settings, longest, reason",
    [
        ("falcon", FALCON | {"alibi": True}, 50, "a trial"),
        ("mistral", GROUPED | {"sliding_window": 64}, 65, "do not fit the sliding window of 64"),
        ("mamba", {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 4}, 50, "fails in a trial"),
        (
            "llama",
            GROUPED | {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            50,
            "dynamic rotary positions",
        ),
    ],
)
def test_what_cannot_share_says_why(family, settings, longest, reason):
    assert reason in why_no_trees(build(family, **settings), longest)


def test_the_head_is_applied_only_where_something_is_scored():
    model, requests = build("opt", **FAMILIES["opt"]), {0: ([5, 6, 7, 8], [9, 10]), 1: ([5, 6, 7, 8], [11])}
    shapes = []
    assert forward.ends_with_head(model)
    handle = model.get_output_embeddings().register_forward_hook(lambda head, inputs, out: shapes.append(tuple(out.shape)))
    forward.score_trees(model, lay_out(requests), requests)
    handle.remove()
    # one token for the model's own pass; then the context's last token and the first choice's first
    assert shapes == [(1, 1, 300), (2, 300)]


def test_the_model_is_left_as_it_was():
    model, requests = build("bloom", **FAMILIES["bloom"]), branching_questions()
    before = forward.score_plain(model, rows.chains(requests)[:1], requests)
    forward.score_trees(model, lay_out(requests), requests)
    assert forward.score_plain(model, rows.chains(requests)[:1], requests) == before


def test_bitsandbytes_layers_share_too(tmp_path):
    bnb = library("bitsandbytes")
    model, requests = build("opt", **FAMILIES["opt"]), branching_questions()
    for layer in model.model.decoder.layers:
        for name in ("fc1", "fc2"):
            linear = getattr(layer, name)
            packed = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=True, quant_type="nf4")
            packed.load_state_dict(linear.state_dict())
            setattr(layer, name, packed.to("cpu"))
            assert getattr(layer, name).weight.dtype == torch.uint8  # it is quantized
    shared, plain = (
        forward.score_trees(model, lay_out(requests), requests),
        forward.score_plain(model, rows.chains(requests), requests),
    )
    assert max(abs(shared[i].logprob - plain[i].logprob) for i in plain) < 1e-4


@pytest.mark.parametrize("tile", [1, 7 * 20, 2**21])
@pytest.mark.parametrize("family", ["opt", "phi"])  # phi's head has a bias
def test_tiles_of_the_vocabulary_change_nothing(family, tile, monkeypatch):
    model, requests = build(family, **FAMILIES[family]), branching_questions()
    if family == "phi":
        torch.nn.init.normal_(model.lm_head.bias)
    expected = forward.score_plain(model, rows.chains(requests), requests)
    monkeypatch.setitem(head.TILE, "cpu", tile)
    for results in (
        forward.score_trees(model, lay_out(requests), requests),
        forward.score_plain(model, rows.chains(requests), requests),
    ):
        for i, one in expected.items():
            assert results[i].token_logprobs == pytest.approx(one.token_logprobs, abs=2e-5)
            assert results[i].greedy == one.greedy


@pytest.mark.parametrize("wide", [1, 2, 3, 6])
def test_of_equal_logits_the_first_is_the_likeliest(wide):
    logits = torch.tensor([[1.0, 5.0, 2.0, 5.0, 5.0, 0.0], [7.0, 5.0, 2.0, 5.0, 5.0, 7.0]])
    requests = [(row, token) for row in range(2) for token in range(6)]
    results, greedy = head.token_logprobs(logits.clone().split(wide, dim=-1), *map(torch.tensor, zip(*requests, strict=True)))
    expected = torch.log_softmax(logits, -1)
    assert results.tolist() == pytest.approx([expected[one].item() for one in requests], abs=1e-6)
    assert [one for one, best in zip(requests, greedy.tolist(), strict=True) if best] == [(0, 1), (1, 0)]


def test_a_tile_of_nothing_but_padding_adds_nothing():
    logits = torch.tensor([[1.0, 2.0, 3.0, -torch.inf, -torch.inf]])
    expected = torch.log_softmax(logits, -1)[0, 1].item()
    results, greedy = head.token_logprobs(logits.split(3, dim=-1), torch.tensor([0]), torch.tensor([1]))
    assert (results.tolist(), greedy.tolist()) == ([pytest.approx(expected, abs=1e-6)], [False])


def test_a_token_that_the_head_does_not_have_is_no_number():
    results, greedy = head.token_logprobs([torch.zeros(1, 3)], torch.tensor([0]), torch.tensor([9]))
    assert (torch.isnan(results).tolist(), greedy.tolist()) == ([True], [False])


@pytest.mark.parametrize("bias", [True, False])
def test_the_heads_tiles_in_half_precision_are_what_the_head_gives(bias):
    torch.manual_seed(0)
    linear, states = torch.nn.Linear(64, 300, bias=bias).bfloat16(), torch.randn(20, 64).bfloat16()
    with torch.inference_mode():
        results = torch.cat([tile.clone() for tile in head._head_tiles(linear, states)], dim=1)
        assert torch.equal(results, linear(states))
