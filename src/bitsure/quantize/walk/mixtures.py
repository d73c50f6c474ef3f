"""The parts of a mixture of experts: lists of experts, and the gates that choose among them.

Experts that transformers keeps in one three-dimensional parameter become a list of modules with linear layers, which are views
of the parameter: what is written into a layer stands in the parameter, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from bitsure.quantize.refusals import not_quantizable

LIST = "experts"  # what transformers, and code that comes with models, call the list
GATES = ("gate", "router")
READS_ALL = "reads_all_tokens"  # an attribute of a list
SAME = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # of one function that is computed in two ways


class Expert(nn.Module):
    """One of the experts of a fused module."""

    def __init__(self, fused: nn.Module, number: int) -> None:
        super().__init__()
        self._fused = (fused,)  # in a tuple, so that it is no submodule
        settings = cast("Any", fused)
        up, down = (_matrix(fused, name, number) for name in (_first(fused), "down_proj"))
        up_bias, down_bias = (_bias(fused, name, number) for name in (_first(fused), "down_proj"))
        if settings.has_gate:
            half = len(up) // 2
            gate_rows, up_rows = (
                (slice(half), slice(half, None)) if settings.is_concatenated else (slice(0, None, 2), slice(1, None, 2))
            )
            self.gate_proj = _linear(up[gate_rows], None if up_bias is None else up_bias[gate_rows])
            up, up_bias = up[up_rows], None if up_bias is None else up_bias[up_rows]
        self.up_proj = _linear(up, up_bias)
        self.down_proj = _linear(down, down_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the expert's output (n, width) for tokens (n, width)."""
        fused = cast("Any", self._fused[0])
        if not fused.has_gate:
            hidden = fused.act_fn(self.up_proj(x))
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
            joined = torch.cat((gate, up), -1) if fused.is_concatenated else torch.stack((gate, up), -1).flatten(-2)
            hidden = fused._apply_gate(joined)
        out: torch.Tensor = self.down_proj(hidden)
        return out


class SeparateExperts(nn.ModuleList):
    """The experts of a fused module, one by one, and what sums the outputs of those that a token is routed to."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__(Expert(fused, number) for number in range(len(getattr(fused, _first(fused)))))
        self.num_experts = len(self)

    def forward(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the experts' outputs, (n, width).

        Args:
            hidden_states: Tokens, shape (n, width).
            top_k_index: The numbers of each token's experts, shape (n, k); the number of experts stands for none.
            top_k_weights: Their weights, shape (n, k).
        """
        out = torch.zeros_like(hidden_states)
        for number in torch.unique(top_k_index).tolist():
            if number < len(self):
                rows, places = torch.where(top_k_index == number)
                weighted = self[number](hidden_states[rows]) * top_k_weights[rows, places, None]
                out.index_add_(0, rows, weighted.to(out.dtype))
        return out


def separate_experts(model: nn.Module) -> None:
    """Replace every fused module of experts by `SeparateExperts`, for good.

    Raises:
        UserError: If the separate experts do not compute what the fused ones do.
    """
    for fused in _replace_fused(model).values():
        for name in list(fused._parameters):
            fused._parameters[name] = None  # The views keep the memory, as long as they are on this device.


@contextmanager
def separated(model: nn.Module) -> Iterator[dict[str, nn.Module]]:
    """Have `SeparateExperts` in a model for the length of the `with` block; changes of their weights stay.

    Yields:
        The fused modules by name; one that is taken out stays separate.

    Raises:
        UserError: As `separate_experts`.
    """
    replaced = _replace_fused(model)
    try:
        yield replaced
    finally:
        for name, fused in replaced.items():
            _set(model, name, fused)


def read_all(model: nn.Module) -> None:
    """Have every expert of a model learn from every token, whatever the gates decide; what the model computes stays."""
    for experts in expert_lists(model).values():
        setattr(experts, READS_ALL, True)


def reads_all(experts: nn.ModuleList) -> bool:
    """Return whether `read_all` was called for a list of experts."""
    return getattr(experts, READS_ALL, False)


def without_number(name: str) -> str:
    """Return a layer's name with `*` in the place of its expert's number: all experts' layers of one kind have one name."""
    return re.sub(rf"(?<=\b{LIST}\.)\d+(?=\.)", "*", name)


def expert_lists(module: nn.Module) -> dict[str, nn.ModuleList]:
    """Return the lists of experts inside a module, by their names there."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList) and name.rpartition(".")[2] == LIST and len(part)
    }


def in_experts(module: nn.Module) -> tuple[str, ...]:
    """Return what the names of modules inside lists of experts begin with."""
    return tuple(f"{name}." for name in expert_lists(module))


def gates(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules inside a module that decide which experts a token is given, or how much of an expert, by name.

    They stand beside a list of experts, fused or not, and are called `gate` or `router`, or end in `_gate`.
    """
    chosen: dict[str, nn.Module] = {}
    for name, parent in module.named_modules():
        if LIST not in dict(parent.named_children()):
            continue
        for child, gate in parent.named_children():
            if child in GATES or child.endswith("_gate"):
                inside = ((".".join(filter(None, (name, child, inner))), part) for inner, part in gate.named_modules())
                chosen |= dict(inside)
    return chosen


def _replace_fused(model: nn.Module) -> dict[str, nn.Module]:
    """Replace the fused modules of a model, and return them by name."""
    replaced = {name: module for name, module in model.named_modules() if _is_fused(module)}
    for name, fused in replaced.items():
        separate = SeparateExperts(fused)
        _check_same(name, fused, separate)
        _set(model, name, separate.train(fused.training))
    return replaced


def _is_fused(module: nn.Module) -> bool:
    """Return whether a module has the parameters and flags of transformers' `use_experts_implementation`, and no others."""
    flags = ("has_gate", "has_bias", "is_transposed", "is_concatenated")
    if not all(hasattr(module, flag) for flag in flags) or getattr(module, "has_post_expert_norm", False):
        return False
    names = {_first(module), "down_proj"}
    names |= {f"{name}_bias" for name in names} if cast("Any", module).has_bias else set()
    return {name for name, _ in module.named_parameters()} == names


def _first(fused: nn.Module) -> str:
    return "gate_up_proj" if cast("Any", fused).has_gate else "up_proj"


def _matrix(fused: nn.Module, name: str, number: int) -> torch.Tensor:
    """Return an expert's part of a fused weight as (out, in), a view."""
    part: torch.Tensor = getattr(fused, name).detach()[number]
    return part.T if cast("Any", fused).is_transposed else part


def _bias(fused: nn.Module, name: str, number: int) -> torch.Tensor | None:
    return getattr(fused, f"{name}_bias").detach()[number] if cast("Any", fused).has_bias else None


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """Return a linear layer whose parameters are these tensors themselves."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


@torch.no_grad()
def _check_same(name: str, fused: nn.Module, separate: SeparateExperts) -> None:
    """Raise UserError unless both give one token for each expert the same output; nothing is computed without weights."""
    weight = next(separate.parameters())  # of the first expert's gate_proj or up_proj
    if weight.is_meta:
        return
    x = torch.randn(len(separate), weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    index = torch.arange(len(separate), device=weight.device)[:, None]
    shares = torch.full_like(index, 1, dtype=weight.dtype)
    expected, given = fused(x, index, shares).float(), separate(x, index, shares).float()
    change = torch.linalg.vector_norm(given - expected)
    if not change <= SAME.get(weight.dtype, SAME[torch.float16]) * torch.linalg.vector_norm(expected):
        raise not_quantizable(
            f"{name}: {type(fused).__name__} does not compute what its experts compute one by one, so that they cannot be "
            "quantized by themselves."
        )


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
