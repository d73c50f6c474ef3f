"""What the page says of a mixture's gates and experts."""

from __future__ import annotations

import pytest

from bitsure.report.expert_sentences import expert_sentences
from bitsure.results.experts import ExpertCalibration, Experts, RoutingChange, WindowMean


def mean(value, half=0.001):
    return WindowMean(value=value, ci_low=value - half, ci_high=value + half, windows=8)


def routing(cost):
    return RoutingChange(
        changed=mean(0.25, 0.05),
        layers={"layers.0.experts": 0.1, "layers.1.experts": 0.4},
        loss=mean(0.01),
        loss_same_experts=mean(0.01 - cost),
        loss_by_routing=mean(cost),
        loss_where_changed=mean(0.03),
        loss_where_same=mean(0.002),
    )


@pytest.mark.parametrize(
    ("cost", "conclusion"),
    [
        (0.004, "Routing explains that part of the loss."),
        (0.0005, "too uncertain to say that routing explains any of the loss"),
        (-0.004, "better off with other experts"),
    ],
)
def test_the_loss_is_put_down_to_routing_only_where_the_interval_allows_it(cost, conclusion):
    decisions, loss, contrast = expert_sentences(Experts(number=8, routing=routing(cost)))
    assert (
        decisions.startswith("25.0% [20.0%, 30.0%] of the gates' decisions on 8 windows")
        and "layers.1.experts, 40.0%" in decisions
    )
    assert f"other decisions cost {cost:+.2g} [{cost - 0.001:+.2g}, {cost + 0.001:+.2g}]" in loss and conclusion in loss
    assert "+0.03 " in contrast and "+0.002 " in contrast


def test_experts_that_learned_from_few_tokens_are_named():
    few = {f"layers.0.experts.{number}": number for number in range(7)}
    counted = ExpertCalibration(tokens={"layers.0.experts": list(range(8))}, few=few, all_experts=False)
    [sentence] = expert_sentences(Experts(number=8, calibration=counted))
    assert (
        "7 of 8 experts" in sentence
        and "layers.0.experts.0 (0), layers.0.experts.1 (1)" in sentence
        and "and 2 more" in sentence
    )
    [sentence] = expert_sentences(Experts(number=8, calibration=counted.model_copy(update={"all_experts": True})))
    assert sentence == "Each of the 8 experts learned from every token of the calibration text."
    assert expert_sentences(None) == []
