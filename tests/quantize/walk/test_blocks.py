"""The walk through a model gives what the model itself computes, family by family."""

from __future__ import annotations

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import block_linears, find_blocks, linears, matrix
from tests.builders.families import FAMILIES, build
from tests.builders.quantizing import ALL, WINDOWS


@pytest.mark.parametrize("family", ALL)
@torch.no_grad()
def test_every_layer_is_given_what_it_is_given_in_a_forward_pass(family):
    model = build(family, **ALL[family])
    layers = block_linears(model)

    def inputs(run) -> dict[str, torch.Tensor]:
        seen: dict[str, list] = {name: [] for name in layers}
        handles = [
            layer.register_forward_pre_hook(lambda _, x, name=name: seen[name].append(x[0].flatten(0, -2)))
            for name, layer in layers.items()
        ]
        run(seen)
        for handle in handles:
            handle.remove()
        return {name: torch.cat(parts) for name, parts in seen.items()}

    def walked(seen) -> None:
        for number, _ in enumerate(walk(model, WINDOWS)):
            if number == 0:
                [parts.clear() for parts in seen.values()]  # what was run to see what a block returns

    expected = inputs(lambda seen: model(input_ids=WINDOWS))
    given = inputs(walked)
    for name in layers:
        assert torch.allclose(given[name], expected[name], atol=1e-4 * expected[name].abs().max()), name


@torch.no_grad()
def test_what_is_changed_in_a_block_reaches_the_next():
    model = build("opt", **FAMILIES["opt"])
    blocks = find_blocks(model)[1]
    seen = []
    for number, (_, block, _) in enumerate(walk(model, WINDOWS)):
        if number == 0:
            matrix(block.fc2).zero_()
        else:
            block.fc1.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    changed = torch.cat(seen)
    seen.clear()
    model(input_ids=WINDOWS)
    assert torch.allclose(changed, seen[0].view(changed.shape), atol=1e-4)
    assert not blocks[0].fc2.weight.any()


def test_a_model_of_two_stacks_is_refused():
    block = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model = torch.nn.ModuleDict({key: torch.nn.ModuleList([block]) for key in ("encoder", "decoder")})
    with pytest.raises(UserError, match=r"2 lists of blocks with linear layers \(encoder, decoder\)"):
        find_blocks(model)


@torch.no_grad()
def test_a_block_is_left_as_it_was_found():
    model = build("opt", **FAMILIES["opt"])
    for _, block, feed in walk(model, WINDOWS):
        feed.replay.finish(set(linears(block)))
        feed()
        assert "forward" in vars(block.fc1)
    for module in model.modules():
        assert "forward" not in vars(module) and not module._forward_pre_hooks


@torch.no_grad()
def test_an_output_that_its_reader_changes_in_place_is_computed_again():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

        def forward(self, states):
            found = self.a(states)
            found += 1
            return self.b(found)

    block, states = Block(), torch.ones(1, 2)
    expected, kept = block(states), Replay(block, [torch.ones(100, 2)])
    kept.finish({"a"})
    assert all(torch.equal(block(states), expected) for _ in range(3))
    kept.forget()


@torch.no_grad()
def test_a_layer_that_runs_twice_in_a_pass_is_refused():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

        def forward(self, states):
            return self.b(self.a(self.a(states)))

    block = Block()
    kept = Replay(block, [torch.ones(1, 2)])
    kept.finish({"a"})
    with pytest.raises(UserError, match="a runs twice in one pass through its block"):
        block(torch.ones(1, 2))


def test_a_model_whose_blocks_get_more_than_hidden_states_of_each_text_is_refused():
    class Body(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([Block()])

        def forward(self, input_ids, use_cache):
            states = input_ids[..., None].float().expand(-1, -1, 2)
            return self.layers[0](states, extra=states.sum() if self.per_text else torch.ones(1))

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, states, extra):
            return self.linear(states) + extra

    model = torch.nn.Module()
    model.base_model, model.device = Body(), torch.device("cpu")
    windows = torch.arange(2 * 2048).view(2, 2048)
    model.base_model.per_text = False
    assert len(list(walk(model, windows))) == 1
    model.base_model.per_text = True
    with pytest.raises(UserError, match="block 0 is called with other arguments for each text"):
        next(walk(model, windows))
