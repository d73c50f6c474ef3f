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

from bitsure.quantize.targets import LINEAR, matrix

SAME = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # ‖difference‖ / ‖output‖ of one function
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
        """Change the weights of modules, found by name. What is not folded is left to the layers' hooks (`runtime`)."""
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


@torch.no_grad()
def find_source(block: nn.Module, group: dict[str, nn.Module], run: Callable[[], torch.Tensor]) -> tuple[str | None, str]:
    """The module of a block whose output may be divided in place of a group's input, channel by channel, and how.

    group: the linear layers that read the input, by their names in the block; run: runs some text through the block and
    returns what it gives. Each candidate's output is multiplied by powers of two, which is exact, and the group's inputs
    divided by them: where the block then gives what it gave, nothing else reads that output, and what lies between is linear
    in each channel by itself.
    """
    width = matrix(next(iter(group.values()))).shape[1]
    candidates, expected = _run_before(block, group, width, run)
    generator = torch.Generator().manual_seed(0)
    probe = 2.0 ** torch.randint(-1, 2, (width,), generator=generator)
    probe[0] = 2.0  # never all ones
    for name in candidates:
        source = block.get_submodule(name)
        with ExitStack() as stack:
            stack.callback(source.register_forward_hook(lambda module, inputs, out: out * probe.to(out)).remove)
            for layer in group.values():
                undo = layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] / probe.to(inputs[0]), *inputs[1:]))
                stack.callback(undo.remove)
            found = run()
        if _same(found, expected) and (how := _how_it_multiplies(source, probe)):
            return name, how
    return None, SCALE


def _run_before(
    block: nn.Module, group: dict[str, nn.Module], width: int, run: Callable[[], torch.Tensor]
) -> tuple[list[str], torch.Tensor]:
    """Modules with an output of `width` channels and parameters to fold into, the latest first, and the block's output."""
    order, reached = [], []
    first = next(iter(group.values()))

    def watch(name: str):
        return lambda module, inputs, out: order.append(name) if not reached else None

    with ExitStack() as stack:
        stack.callback(first.register_forward_pre_hook(lambda module, inputs: reached.append(True)).remove)
        for name, module in block.named_modules():
            weight = getattr(module, "weight", None)
            fits = isinstance(module, LINEAR) and len(matrix(module)) == width
            fits |= isinstance(weight, torch.Tensor) and weight.shape == (width,)
            if fits and module not in group.values():
                stack.callback(module.register_forward_hook(watch(name)).remove)
        expected = run()
    return order[::-1], expected


def _how_it_multiplies(source: nn.Module, probe: torch.Tensor) -> str | None:
    """Whether dividing its parameters divides a module's output, and as which of the two kinds of norm; tried on a copy."""
    if isinstance(source, LINEAR):
        return SCALE
    x = torch.randn(4, len(probe), generator=torch.Generator().manual_seed(1)).to(source.weight)
    expected = source(x) / probe.to(x)
    for how in (SCALE, OFFSET):
        changed = copy.deepcopy(source)
        _divide_output(changed, probe, how)
        if _same(changed(x), expected):
            return how
    return None


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).float().norm() <= SAME[expected.dtype] * expected.float().norm())
