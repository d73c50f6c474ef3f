"""What the layers of a block are given on calibration text: which of them read the same input, and its statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitsure.quantize.walk.blocks import EnoughError
from bitsure.quantize.walk.targets import dense_linears, not_reached

TILE = 256  # rows of a Gram matrix that are computed at once

Hook = Callable[[nn.Module, tuple[Any, ...]], None]


@dataclass(frozen=True)
class Inputs:
    """Statistics of the input x of a layer on calibration text."""

    hessian: torch.Tensor
    """The mean of x xᵀ over all tokens, (in, in) float32; GPTQ's H but for the factor 2."""
    tokens: int
    """Tokens that reached the layer."""
    mean_abs: torch.Tensor | None = None
    """The mean of |x|, (in,) float32; None unless it was requested."""


def layers_by_input(
    block: nn.Module, feed: Callable[[], None], known: dict[str, list[list[str]]] | None = None
) -> list[dict[str, nn.Module]]:
    """Return a block's dense linear layers in the order in which they run, those that read the very same input together.

    Args:
        block: The block.
        feed: Runs text through it.
        known: The layers' names in earlier blocks, by structure: of blocks of one structure only the first is run.
            The result is added to it.
    """
    layers = dense_linears(block)
    if known is not None and repr(block) in known:
        return [{name: layers[name] for name in group} for group in known[repr(block)]]
    groups: dict[int, dict[str, nn.Module]] = {}
    kept: list[torch.Tensor] = []
    called: set[str] = set()

    def watch(name: str) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if name not in called:
                called.add(name)
                kept.append(inputs[0])  # Kept alive: its id must stay its own.
                groups.setdefault(id(inputs[0]), {})[name] = module
            if len(called) == len(layers):
                raise EnoughError

        return hook

    with _hooked({module: watch(name) for name, module in layers.items()}):
        feed()
    _check_reached(sorted(set(layers) - called))
    if known is not None:
        known[repr(block)] = [list(group) for group in groups.values()]
    return list(groups.values())


def _check_reached(idle: list[str]) -> None:
    if idle:
        raise not_reached(idle)


def measure(groups: list[dict[str, nn.Module]], feed: Callable[[], None], means: bool = False) -> list[Inputs]:
    """Return the statistics of the input of each group of layers, in the order in which they run; `means`: mean |x| too."""
    grams: dict[int, torch.Tensor] = {}
    absolute: dict[int, torch.Tensor] = {}
    tokens = [0] * len(groups)

    def watch(number: int) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            if tokens[number] == 0:
                grams[number], absolute[number] = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1])
            _add_gram(grams[number], x)
            if means:
                absolute[number] += x.abs().sum(0)
            tokens[number] += len(x)
            if number == len(groups) - 1:
                raise EnoughError

        return hook

    with _hooked({next(iter(group.values())): watch(number) for number, group in enumerate(groups)}):
        feed()
    _check_reached([name for group, n in zip(groups, tokens, strict=True) if not n for name in group])
    return [
        Inputs(_mirrored(grams[number]).div_(n), n, absolute[number] / n if means else None) for number, n in enumerate(tokens)
    ]


def channel_ranges(groups: list[dict[str, nn.Module]], feed: Callable[[], None]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the lowest and the highest value of each input channel, (in,) float32 both, of each group in its order."""
    ranges: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def watch(number: int) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            if len(x):  # An expert may be given no token.
                low, high = x.amin(0), x.amax(0)  # torch.aminmax takes ten times as long.
                if number in ranges:
                    low, high = torch.minimum(low, ranges[number][0]), torch.maximum(high, ranges[number][1])
                ranges[number] = low, high
            if number == len(groups) - 1:
                raise EnoughError

        return hook

    with _hooked({next(iter(group.values())): watch(number) for number, group in enumerate(groups)}):
        feed()
    _check_reached([name for number, group in enumerate(groups) if number not in ranges for name in group])
    return [ranges[number] for number in range(len(groups))]


@contextmanager
def _hooked(hooks: dict[nn.Module, Hook]) -> Iterator[None]:
    """Give modules forward pre-hooks for the length of the `with` block."""
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add_gram(total: torch.Tensor, x: torch.Tensor) -> None:
    """Add xᵀx to the lower triangle of `total`, some of its rows at a time: half the work of a full product."""
    for start in range(0, x.shape[1], TILE):
        end = start + TILE
        total[start:end, :end].addmm_(x[:, start:end].T, x[:, :end])


def _mirrored(lower: torch.Tensor) -> torch.Tensor:
    above = lower.tril(-1).T
    return lower.tril_().add_(above)
