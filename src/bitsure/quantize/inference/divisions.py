"""Dividing layers' inputs and multiplying their weights instead: the function stays, the inputs become easier to round.

The division is folded into the norm or linear layer that computes the input, if there is one; otherwise it is done while the
model runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from bitsure.quantize.walk.mixtures import in_experts
from bitsure.quantize.walk.targets import is_linear, matrix, parameter

SAME = 1e-5  # ‖difference‖ / ‖output‖ of one function that is computed in two ways, in float32
OFFSET, SCALE = "1 + weight", "weight"  # the two factors that norms multiply by


@dataclass(frozen=True)
class Division:
    """The inputs of layers, divided by scales, and the columns of their weights multiplied by them."""

    layers: list[str]
    """Layers that read one input."""
    scales: torch.Tensor
    """(in,) float32."""
    source: str | None = None
    """The module whose output is divided instead; None: the input is divided while the model runs."""
    multiplies_by: str = SCALE
    """The factor of a source that is a norm: `OFFSET` or `SCALE`."""

    @torch.no_grad()
    def apply(self, module_of: Callable[[str], nn.Module]) -> None:
        """Change the weights of modules, found by name; divisions that are not folded are left to the layers' hooks."""
        for name in self.layers:
            weight = matrix(module_of(name))
            weight.mul_(self.scales.to(weight.device))
        if self.source is not None:
            _divide_output(module_of(self.source), self.scales, self.multiplies_by)


def _divide_output(source: nn.Module, scales: torch.Tensor, multiplies_by: str) -> None:
    weight = parameter(source, "weight")
    scales = scales.to(weight.device)
    if is_linear(source):
        matrix(source).div_(scales[:, None])
    elif multiplies_by == OFFSET:
        weight.copy_((1 + weight.float()) / scales - 1)
    else:
        weight.div_(scales)
    if getattr(source, "bias", None) is not None:
        parameter(source, "bias").div_(scales)


DivisionSource = tuple[str | None, str]  # `source` and `multiplies_by` of a `Division`


@torch.no_grad()
def find_sources(block: nn.Module, groups: list[dict[str, nn.Module]], run: Callable[[], torch.Tensor]) -> list[DivisionSource]:
    """Return for each group of layers the module whose output may be divided instead of their input.

    A candidate's output is multiplied by powers of two, which is exact, and the group's input divided by them. If the block's
    result stays the same, nothing else reads that output, and what lies between is linear in each channel by itself.

    Args:
        block: The block.
        groups: Linear layers that read one input, by their names in the block.
        run: Runs some text through the block and returns what it adds to its input.
    """
    ran, expected = _in_order(block, run)
    sources: list[DivisionSource] = []
    for group in groups:
        width = _width(group)
        first = min(ran.index(name) for name in group)
        source: DivisionSource = (None, SCALE)
        for name in reversed(ran[:first]):
            module = block.get_submodule(name)
            factor = multiplies_by(module, width) if _has_channels(module, width) else None
            if factor and _same(_probed(block, group, name, run), expected):
                source = name, factor
                break
        sources.append(source)
    return sources


def _in_order(block: nn.Module, run: Callable[[], torch.Tensor]) -> tuple[list[str], torch.Tensor]:
    """Return the block's modules with a weight in the order in which they ran, and the block's result."""
    order: list[str] = []
    inside = in_experts(block)  # Not every token reaches them.
    with ExitStack() as stack:
        for name, module in block.named_modules():
            if not name.startswith(inside) and isinstance(getattr(module, "weight", None), torch.Tensor):
                handle = module.register_forward_pre_hook(lambda module, inputs, name=name: order.append(name))
                stack.callback(handle.remove)
        return order, run()


def _probed(block: nn.Module, group: dict[str, nn.Module], source: str, run: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Return the block's result if a source's output is multiplied by powers of two and a group's input divided by them."""
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
    """Return ½, 1 and 2, never all the same, shape (width,)."""
    powers: torch.Tensor = 2.0 ** torch.randint(-1, 2, (width,), generator=torch.Generator().manual_seed(0))
    powers[0], powers[-1] = 2.0, 0.5
    return powers


def _has_channels(module: nn.Module, width: int) -> bool:
    """Return whether a module's output has so many channels, each with parameters of its own."""
    return len(matrix(module)) == width if is_linear(module) else parameter(module, "weight").shape == (width,)


def multiplies_by(source: nn.Module, width: int) -> str | None:
    """Return the factor to divide so that a module's output is divided, tried on a copy; None if neither is the one."""
    if is_linear(source):
        return SCALE
    source = copy.deepcopy(source).float()
    weight = parameter(source, "weight")
    probe = _powers(width).to(weight)
    x = torch.randn(4, width, generator=torch.Generator().manual_seed(1)).to(weight)
    expected = source(x) / probe
    for factor in (SCALE, OFFSET):
        changed = copy.deepcopy(source)
        _divide_output(changed, probe, factor)
        if _same(changed(x), expected):
            return factor
    return None


def _same(result: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two results are equal up to float32; powers of two round nothing, in half precision either."""
    result, expected = result.float(), expected.float()
    return bool(torch.linalg.vector_norm(result - expected) <= SAME * torch.linalg.vector_norm(expected))
