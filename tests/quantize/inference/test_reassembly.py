from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitsure.base.errors import UserError
from bitsure.config.number_formats import Activations
from bitsure.quantize.inference.input_transform import InputTransform
from bitsure.quantize.inference.reassembly import copies, disassemble, distances, expanded, grid, match, reassemble
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.native.rtn import Rtn
from bitsure.quantize.weights.fake_quantize import fake_quantize


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / len(x)


def test_copies_by_hand():
    assert copies(torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 7.0]), 1.0).tolist() == [1, 1, 1, 2, 2, 7]


def test_a_reassembly_by_hand():
    """Channel 1 is taken into three; of the even channels 0 is nearest to 3, then 2 to 5; 4 stays."""
    cost = torch.full((6, 6), 9.0)
    cost[0, 3], cost[2, 5], cost[4, 5], cost[0, 1] = 1, 2, 3, 0
    found = reassemble(cost, torch.tensor([1, 3, 1, 1, 1, 1]))
    assert (found.merged.tolist(), found.into.tolist(), found.copied.tolist()) == ([0, 2], [3, 5], [1, 1])
    assert found.divisors.tolist() == [3, 3, 3, 2, 1, 2] and found.most_copies == 3
    x, weight = torch.tensor([[1.0, 30, 2, 3, 4, 6]]), torch.tensor([[10.0, 1, 20, 30, 40, 60]])
    assert found.inputs(x).tolist() == [[10, 10, 10, 2, 4, 4]]
    assert found.weight(weight).tolist() == [[1, 1, 1, 40, 40, 80]]


def test_disassembly_computes_what_the_wider_layer_computes():
    """Copies are columns of their own there, of inputs and weights, and are rounded with the others."""
    x, weight, parts = random(1, 5, 6).float(), random(2, 4, 6).float(), torch.tensor([1, 3, 1, 2, 1, 1])
    apart, numbers = disassemble(parts), Activations(4)
    assert apart.is_wider and apart.most_copies == 3 and torch.equal(apart.weight(weight), weight)
    wide_x, wide_weight = (torch.repeat_interleave(values, parts, dim=1) for values in (x / parts, weight))
    grid = Rtn(4, -1, False)
    expected = fake_quantize(wide_x, numbers) @ round_to_nearest(wide_weight, grid).dequantize().T
    result = InputTransform(numbers=numbers, reassembly=apart)(x) @ round_to_nearest(weight, grid).dequantize().T
    torch.testing.assert_close(result, expected)
    assert not torch.allclose(result, fake_quantize(x, numbers) @ round_to_nearest(weight, grid).dequantize().T)
    torch.testing.assert_close(InputTransform(reassembly=apart)(x), x)


def test_an_expansion_is_used_up_and_not_exceeded():
    largest = torch.cat([torch.ones(99), torch.tensor([20.0])])
    for expansion, copied in ((0.01, 1), (0.05, 5), (0.15, 15)):
        assert int((expanded(largest, expansion) - 1).sum()) == copied


def test_channels_of_one_nearest_channel_are_merged_together():
    cost = torch.full((4, 4), 9.0)
    cost[0, 1], cost[2, 1] = 1, 2
    found = reassemble(cost, torch.tensor([1, 1, 1, 3]))
    assert (found.merged.tolist(), found.into.tolist(), found.divisors.tolist()) == ([0, 2], [1, 1], [3, 3, 3, 3])
    assert found.inputs(torch.tensor([[1.0, 2, 6, 12]])).tolist() == [[4, 3, 4, 4]]


def test_what_merging_a_pair_costs_by_hand():
    x, weight = torch.tensor([[1.0, 3], [0, 2]]), torch.tensor([[1.0, 2], [0, 4]])
    # ½ (x_0 − x_1) = (−1, −1), W_0 − W_1 = (−1, −4): 2 · 17 over two tokens
    assert distances(gram(x), weight).tolist() == [[0, 17], [17, 0]]


@settings(max_examples=50)
@given(st.integers(2, 20), st.integers(1, 6), st.integers(0, 1000))
def test_distances_are_the_exact_error_of_the_pair(width, rows, seed):
    x, weight = random(seed, 7, width), random(seed + 1, rows, width)
    cost = distances(gram(x), weight)
    for i in range(0, width, 2):
        for j in range(1, width, 2):
            difference = (x[:, i] + x[:, j])[:, None] / 2 * (weight[:, i] + weight[:, j])
            error = x[:, [i]] * weight[:, i] + x[:, [j]] * weight[:, j] - difference
            torch.testing.assert_close(error, (x[:, i] - x[:, j])[:, None] * (weight[:, i] - weight[:, j]) / 2)
            torch.testing.assert_close(cost[i, j], error.square().sum() / 7)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=24), st.integers(0, 1000))
def test_the_width_stays_and_the_error_is_that_of_merging(parts, seed):
    parts = torch.tensor(parts)
    width, extra = len(parts), int((parts - 1).sum())
    x, weight = random(seed, 9, width), random(seed + 1, 4, width)
    found = reassemble(distances(gram(x), weight), parts)
    whole = [i for i in range(width) if parts[i] == 1]
    if extra > sum(i % 2 == 0 for i in whole) or (extra and not any(i % 2 for i in whole)):
        assert found is None
        return
    again, weight_again = found.inputs(x), found.weight(weight)
    assert again.shape == x.shape and weight_again.shape == weight.shape
    members = {b: [b] for b in found.into.tolist()}
    for a, b in zip(found.merged.tolist(), found.into.tolist(), strict=True):
        members[b].append(a)
    expected = x @ weight.T
    for slot in members.values():  # the mean of the channels stands for each of them
        expected = expected - (x[:, slot] - x[:, slot].mean(1, keepdim=True)) @ weight[:, slot].T
    torch.testing.assert_close(again @ weight_again.T, expected)
    for i in range(width):  # a channel that is taken apart is in T slots, the same everywhere, and never merged
        copies_of_it = (again == (x[:, [i]] / parts[i])).all(0).sum()
        assert parts[i] == 1 or (copies_of_it == parts[i] and i not in found.merged and i not in found.into)


def test_taking_apart_alone_is_exact():
    """Where the merged channels are one and the same."""
    x, weight = random(0, 9, 6), random(1, 4, 6)
    x[:, 2], weight[:, 2] = x[:, 5], weight[:, 5]
    found = reassemble(distances(gram(x), weight), torch.tensor([1, 2, 1, 1, 1, 1]))
    assert (found.merged.tolist(), found.into.tolist()) == ([2], [5])
    torch.testing.assert_close(found.inputs(x) @ found.weight(weight).T, x @ weight.T)


def test_whole_channels_change_nothing():
    x = random(0, 9, 6)
    found = reassemble(distances(gram(x), x), torch.ones(6, dtype=torch.long))
    assert (
        not found.changes_channels
        and found.most_copies == 1
        and torch.equal(found.inputs(x), x)
        and torch.equal(found.weight(x), x)
    )


def test_too_few_channels_to_merge():
    cost = torch.ones(4, 4)
    assert match(cost, torch.tensor([1, 5, 1, 1])) is None  # four places are needed, two can be given up
    assert match(cost, torch.tensor([1, 2, 1, 2])) is None  # no odd channel is whole
    assert match(cost, torch.tensor([1, 3, 1, 1])) is not None


def test_the_grid_goes_from_whole_channels_to_ever_more_parts():
    largest = torch.tensor([0.1, 1.0, 0.5, 8.0])
    found = grid(largest, 50)
    assert found[0].tolist() == [1, 1, 1, 1] and found[1].tolist() == [1, 1, 1, 2]
    assert all((b >= a).all() and (b > a).any() for a, b in itertools.pairwise(found))
    assert [one.tolist() for one in grid(torch.full((3,), 2.0), 50)] == [[1, 1, 1]]
    assert [one.tolist() for one in grid(torch.zeros(3), 50)] == [[1, 1, 1]]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_channels_that_are_not_finite_are_refused(broken):
    with pytest.raises(UserError, match="NaN or infinite"):
        grid(torch.tensor([1.0, broken]), 50)
