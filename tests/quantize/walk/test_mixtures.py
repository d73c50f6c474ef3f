"""Experts one by one: the same function, the same memory, and gates that are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.walk import blocks, expert_inputs
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.mixtures import expert_lists, gates, read_all, separate_experts, separated
from bitsure.quantize.walk.targets import block_linears, linears, skipped_modules, unknown_weights
from tests.builders.families import MIXTURES, build
from tests.builders.marks import needs_transformers_5
from tests.builders.quantizing import WINDOWS

pytestmark = needs_transformers_5


class OwnMixture(nn.Module):
    """A mixture as code that comes with a model may have it: a list, and a gate that is a linear layer."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 3, bias=False)
        self.experts = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x):
        chosen = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            if (chosen == number).any():
                out[chosen == number] = expert(x[chosen == number])
        return out


@pytest.mark.parametrize("family", MIXTURES)
@torch.no_grad()
def test_separate_experts_compute_what_fused_ones_do_and_share_their_memory(family):
    model = build(family, **MIXTURES[family])
    names, expected = list(model.state_dict()), model(input_ids=WINDOWS).logits
    assert unknown_weights(model)
    with separated(model):
        assert not unknown_weights(model)
        torch.testing.assert_close(model(input_ids=WINDOWS).logits, expected)
        up = next(iter(expert_lists(model).values()))[2].up_proj
        up.weight.mul_(2)
        changed = model(input_ids=WINDOWS).logits
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(input_ids=WINDOWS).logits, changed)
    assert not torch.allclose(changed, expected)


def test_a_mixture_that_computes_something_else_is_refused():
    model = build("mixtral", **MIXTURES["mixtral"])
    fused = model.model.layers[0].mlp.experts
    fused.forward = lambda x, index, weights: 2 * type(fused).forward(fused, x, index, weights)
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.experts: MixtralExperts does not compute what its experts compute"):
        separate_experts(model)


def test_gates_are_no_target_and_the_proof_says_why():
    model = build("qwen2_moe", **MIXTURES["qwen2_moe"])
    separate_experts(model)
    kept = ["model.layers.0.mlp.gate", "model.layers.0.mlp.shared_expert_gate"]
    assert set(kept) <= set(gates(model)) and not set(kept) & set(block_linears(model))
    skipped = skipped_modules(model)
    assert all("gate of a mixture" in skipped[name] for name in kept)
    assert "model.layers.1.mlp.experts.3.down_proj" in block_linears(model)
    assert list(linears(OwnMixture())) == ["experts.0", "experts.1", "experts.2"]


@pytest.mark.parametrize("mixture", [OwnMixture(), None])
@torch.no_grad()
def test_each_expert_reads_the_tokens_that_the_gate_gives_it(mixture):
    if mixture is None:
        model = build("mixtral", **MIXTURES["mixtral"])
        separate_experts(model)
        mixture = model.model.layers[0].mlp
    width = next(linears(mixture).values().__iter__()).weight.shape[1]
    x, inside = torch.randn(2, 9, width), nn.ModuleDict({"mlp": mixture})
    read = expert_inputs.tokens_of_experts(inside, "mlp.experts", lambda: mixture(x), torch.device("cpu"))
    chosen = 2 if hasattr(mixture, "top_k") else 1
    assert sum(map(len, read)) == 18 * chosen and all(tokens.shape[1] == width for tokens in read)
    rows = x.flatten(0, 1)
    assert all((tokens[:, None] == rows).all(-1).any(1).all() for tokens in read)
    read_all(inside)
    assert all(
        torch.equal(tokens, rows)
        for tokens in expert_inputs.tokens_of_experts(inside, "mlp.experts", lambda: mixture(x), x.device)
    )


@torch.no_grad()
def test_one_expert_at_a_time_is_on_the_device(monkeypatch):
    """A copy stands for a tensor on the device."""
    model = build("mixtral", **MIXTURES["mixtral"])
    separate_experts(model)
    expected = model(input_ids=WINDOWS).logits
    home = {parameter: parameter.data_ptr() for parameter in model.parameters()}

    def away(module):
        return {parameter.data_ptr() != home[parameter] for parameter in module.parameters()}

    for module in (expert_inputs, blocks):
        monkeypatch.setattr(module, "on_device", lambda tensor, device: tensor.clone())
    walked, there = walk(model, WINDOWS), []
    _, block, _ = next(walked)
    assert away(block.self_attn) == away(block.mlp.gate) == {True} and away(block.mlp.experts) == {False}
    mixture = block.mlp.experts
    for expert in mixture:
        expert.down_proj.register_forward_pre_hook(lambda *_: there.append([away(each) for each in mixture]))
    next(walked)
    assert there and all(sum(each == {True} for each in now) == 1 and {True, False} not in now for now in there)
    assert away(mixture) == {False}
    monkeypatch.undo()
    torch.testing.assert_close(model(input_ids=WINDOWS).logits, expected)
