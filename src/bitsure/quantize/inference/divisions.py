"""Dividing what layers read and multiplying their weights instead: the function stays, what is hard to round moves.

The division is folded into the module that makes the input, a norm or a linear layer, where there is one; else it is done
when the model runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from bitsure.quantize.walk.targets import LINEAR, matrix

SAME = 1e-5  # ‖difference‖ / ‖output‖ of one function, in float32
OFFSET, SCALE = "1 + weight", "weight"  # what a norm multiplies by


@dataclass(frozen=True)
class Division:
    """The inputs of layers, divided by `scales` (in,) float32, and the columns of their weights multiplied by them."""

    layers: list[str]
    scales: torch.Tensor
    source: str | None = None  # the module whose output is divided; None: done when the model runs
    multiplies_by: str = SCALE  # of a source that is a norm

    @torch.no_grad()
    def apply(self, module_of: Callable[[str], nn.Module]) -> None:
        """Change the weights of modules, found by name; divisions that are not folded are left to the layers' hooks."""
        for name in self.layers:
            weight = matrix(module_of(name))
            weight.mul_(self.scales.to(weight.device))
        if self.source is not None:
            _divide_output(module_of(self.source), self.scales, self.multiplies_by)


def _divide_output(source: nn.Module, scales: torch.Tensor, multiplies_by: str) -> None:
    scales = scales.to(source.weight.device)
    if isinstance(source, LINEAR):
        matrix(source).div_(scales[:, None])
    elif multiplies_by == OFFSET:
        source.weight.copy_((1 + source.weight.float()) / scales - 1)
    else:
        source.weight.div_(scales)
    if getattr(source, "bias", None) is not None:
        source.bias.div_(scales)


Source = tuple[str | None, str]  # of `Division`: source and multiplies_by


@torch.no_grad()
def find_sources(block: nn.Module, groups: list[dict[str, nn.Module]], run: Callable[[], torch.Tensor]) -> list[Source]:
    """For each group of linear layers that read one input, the module whose output may be divided in its place, and how.

    groups: layers by their names in the block; run: runs some text through the block and returns what it adds to its input. A
    candidate's output is multiplied by powers of two, which is exact, and the group's input divided by them: where the block
    then adds what it added, nothing else reads that output, and what lies between is linear in each channel by itself.
    """
    ran, expected = _in_order(block, run)
    found = []
    for group in groups:
        width = _width(group)
        first = min((ran.index(name) for name in group if name in ran), default=0)  # an expert may be given no token
        candidates = [name for name in ran[:first] if _gives(block.get_submodule(name), width)]
        tried = ((name, _how_it_multiplies(block.get_submodule(name), width)) for name in reversed(candidates))
        holds = (one for one in tried if one[1] and _same(_probed(block, group, one[0], run), expected))
        found.append(next(holds, (None, SCALE)))
    return found


def _in_order(block: nn.Module, run: Callable[[], torch.Tensor]) -> tuple[list[str], torch.Tensor]:
    """The block's modules with a weight in the order in which they ran, and what the block gave."""
    order: list[str] = []
    with ExitStack() as stack:
        for name, module in block.named_modules():
            if isinstance(getattr(module, "weight", None), torch.Tensor):
                handle = module.register_forward_pre_hook(lambda module, inputs, name=name: order.append(name))
                stack.callback(handle.remove)
        return order, run()


def _probed(block: nn.Module, group: dict[str, nn.Module], source: str, run: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What the block gives if a source gives powers of two more and a group takes them back."""
    probe = _powers(_width(group))
    with ExitStack() as stack:
        more = block.get_submodule(source).register_forward_hook(lambda module, inputs, out: out * probe.to(out))
        stack.callback(more.remove)
        for layer in group.values():
            less = layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] / probe.to(inputs[0]), *inputs[1:]))
            stack.callback(less.remove)
        return run()


def _width(group: dict[str, nn.Module]) -> int:
    return matrix(next(iter(group.values()))).shape[1]


def _powers(width: int) -> torch.Tensor:
    """½, 1 and 2, never all the same."""
    found = 2.0 ** torch.randint(-1, 2, (width,), generator=torch.Generator().manual_seed(0))
    found[0], found[-1] = 2.0, 0.5
    return found


def _gives(module: nn.Module, width: int) -> bool:
    """Whether a module's output has so many channels, each with parameters of its own."""
    return len(matrix(module)) == width if isinstance(module, LINEAR) else module.weight.shape == (width,)


def _how_it_multiplies(source: nn.Module, width: int) -> str | None:
    """Whether dividing its parameters divides a module's output, and as which of the two kinds of norm; tried on a copy."""
    if isinstance(source, LINEAR):
        return SCALE
    source = copy.deepcopy(source).float()
    probe = _powers(width).to(source.weight)
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(1)).to(source.weight)
    expected = source(x) / probe
    for how in (SCALE, OFFSET):
        changed = copy.deepcopy(source)
        _divide_output(changed, probe, how)
        if _same(changed(x), expected):
            return how
    return None


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Powers of two round nothing in any type, so that half precision has no allowance of its own."""
    found, expected = found.float(), expected.float()
    return bool((found - expected).norm() <= SAME * expected.norm())
