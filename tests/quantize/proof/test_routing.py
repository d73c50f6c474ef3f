"""What gates decide before and after, and what that costs; how many calibration tokens reach each expert."""

from __future__ import annotations

import logging

import pytest
import torch

from bitsure.quantize.proof.expert_calibration import expert_calibration
from bitsure.quantize.proof.routing import RoutedText, route, routing_change
from bitsure.quantize.walk.mixtures import separate_experts
from tests.builders.families import MIXTURES, build
from tests.builders.marks import needs_transformers_5
from tests.builders.quantizing import WINDOWS

pytestmark = needs_transformers_5
FIRST = "model.layers.0.mlp.experts"


def mixture():
    model = build("mixtral", **MIXTURES["mixtral"])
    separate_experts(model)
    return model


@pytest.fixture(scope="module")
def full():
    return route(mixture(), WINDOWS)


def change(model, full):
    return routing_change(full, route(model, WINDOWS), route(model, WINDOWS, full))


@torch.no_grad()
def test_decisions_and_probabilities_are_those_of_a_forward_pass(full):
    model, chosen = mixture(), []
    model.model.layers[0].mlp.gate.register_forward_hook(lambda gate, x, out: chosen.append(out[2]))
    logits = model(input_ids=WINDOWS).logits
    assert torch.equal(full.sets(FIRST), chosen[0].sort(-1).values)
    expected = logits[:, :-1].softmax(-1).gather(-1, WINDOWS[:, 1:, None])[..., 0].double()
    torch.testing.assert_close(full.probabilities, expected, rtol=1e-3, atol=1e-9)


def test_the_same_model_decides_the_same(full):
    same = change(mixture(), full)
    assert (same.changed.value, same.loss.value, same.loss_by_routing.value, same.loss_where_changed) == (0, 0, 0, None)
    assert same.loss_where_same.value == 0 and same.changed.windows == len(WINDOWS)


@torch.no_grad()
def test_other_gates_alone_cost_nothing_once_tokens_have_the_experts_that_they_had(full):
    model = mixture()
    gate = model.model.layers[1].mlp.gate.weight
    gate.add_(torch.randn(gate.shape, generator=torch.Generator().manual_seed(0)), alpha=gate.std().item())
    moved = change(model, full)
    shares = list(moved.layers.values())
    assert shares[0] == 0 < shares[1] and moved.changed.value == pytest.approx(sum(shares) / 2)
    assert moved.loss_same_experts.value == pytest.approx(0, abs=1e-7)
    assert moved.loss_by_routing.value == pytest.approx(moved.loss.value, abs=1e-7) != 0
    assert moved.loss.ci_low < moved.loss.value < moved.loss.ci_high


def test_experts_with_few_tokens_are_named_with_their_count(full, caplog):
    numbers = full.sets(FIRST)
    expected = [int((numbers == number).sum()) for number in range(4)]
    with caplog.at_level(logging.WARNING):
        counted = expert_calibration(mixture(), WINDOWS, all_experts=False)
    assert counted.tokens[FIRST] == expected and sum(expected) == 2 * WINDOWS.numel()
    assert counted.few == {
        f"{name}.{number}": n for name, counts in counted.tokens.items() for number, n in enumerate(counts) if n < 96
    }
    rarest = min(counted.few, key=counted.few.__getitem__)
    assert f"{rarest} ({counted.few[rarest]})" in caplog.text and "calib.all_experts=true" in caplog.text
    caplog.clear()
    expert_calibration(mixture(), WINDOWS, all_experts=True)
    assert not caplog.text


def test_no_interval_leaves_the_range_of_its_number():
    def text(changed, probability):
        numbers = torch.zeros(3 * 8, 1, dtype=torch.long)
        numbers[:changed] = 1
        return RoutedText({FIRST: [(numbers, numbers.double())]}, torch.full((3, 7), probability, dtype=torch.float64))

    full, quantized = text(0, 1.0), text(1, 0.0)
    quantized.probabilities[0] = 1.0
    result = routing_change(full, quantized, full)
    assert result.changed.ci_low == 0 < result.changed.value and result.loss.ci_high == 1 > result.loss.value
