"""Channel reassembly (QLLM, Liu et al. 2024, section 4.1): outlier channels are spread over the slots of merged ones.

The width stays: as many pairs of similar channels are merged as outlier channels have copies. Disassembly alone merges none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.walk.targets import matrix


@dataclass(frozen=True)
class Reassembly:
    """How channels are reassembled: x'_j is the sum of the channels in slot j, divided by d_j; W'_j the sum of their columns.

    A slot holds its own channel. The slot of a merged channel holds a copy of an outlier channel instead, and the merged
    channel is added to another slot. The divisor d of an outlier channel is the number of its copies, T, and that of a slot
    with merged channels is their number.
    """

    merged: torch.Tensor
    """Channels that give up their slots, each once, (n,) int64."""
    into: torch.Tensor
    """The slots that they are added to, (n,) int64."""
    copied: torch.Tensor
    """The outlier channels that take the freed slots, and then those that no slot was freed for, (n or more,) int64."""
    divisors: torch.Tensor
    """d, whole numbers from 1, (in,) float32."""

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reassembled inputs (…, in) of inputs (…, in)."""
        return self._sum_slots(x) / self.divisors.to(x)

    def weight(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight (out, in) that reads reassembled inputs: x'W'ᵀ = xWᵀ but for the error of merging."""
        return self._sum_slots(weight)

    def after_rounding(self, x: torch.Tensor) -> torch.Tensor:
        """Return rounded inputs (…, in) with each slot counted as often as the wider layer has it.

        A copy without a slot holds the same rounded input as its channel and reads the same rounded column of the weight, so
        that a multiple of the one computes what both would.
        """
        if not self.is_wider:
            return x
        beyond = self.copied[len(self.merged) :]
        counts = torch.ones_like(self.divisors).index_add_(0, beyond, torch.ones(len(beyond), device=beyond.device))
        return x * counts.to(x)

    def _sum_slots(self, values: torch.Tensor) -> torch.Tensor:
        merged, into, copied = (channels.to(values.device) for channels in (self.merged, self.into, self.copied))
        slots = values.index_copy(-1, merged, values.index_select(-1, copied[: len(merged)]))
        return slots.index_add(-1, into, values.index_select(-1, merged))

    @property
    def changes_channels(self) -> bool:
        """Whether any channel is taken apart."""
        return len(self.copied) > 0

    @property
    def is_wider(self) -> bool:
        """Whether copies of outlier channels have no slots, so that the layer that is deployed is wider by them."""
        return len(self.copied) > len(self.merged)

    @property
    def most_copies(self) -> int:
        """The largest T_i; 1 if no channel is taken apart."""
        return int(self.divisors[self.copied].max()) if len(self.copied) else 1

    def on(self, device: torch.device) -> Reassembly:
        """Return the same with tensors on a device."""
        return Reassembly(**{key: tensor.to(device) for key, tensor in vars(self).items()})


@dataclass(frozen=True)
class ReassembledInput:
    """Layers that read one input, and how its channels are reassembled."""

    layers: list[str]
    reassembly: Reassembly
    searched: dict[str, float]
    """The search of the threshold, as `reassembly_search.search` returns it, and `tokens`, the text that it used."""

    @torch.no_grad()
    def apply(self, module_of: Callable[[str], nn.Module]) -> None:
        """Change the weights of modules, found by name; their inputs are left to the layers' hooks.

        Raises:
            UserError: If accelerate keeps a weight elsewhere, where a copy into it would do nothing.
        """
        for name in self.layers:
            weight = matrix(module_of(name))
            if weight.is_meta and self.reassembly.changes_channels:
                raise UserError(f"{name} is offloaded, where it cannot be reassembled: give model.max_memory more.")
            weight.copy_(self.reassembly.weight(weight))


def copies(largest: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return T_i = max(1, ⌈M_i / θ⌉), the number of copies of channels whose largest magnitudes are M (in,), int64."""
    return (largest.double() / threshold).ceil().clamp(min=1).long()


def distances(hessian: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the cost of merging each pair of channels, D_ij = ‖½ (x_i − x_j)(W_i − W_j)‖², a token's mean.

    The norm of the product of a column of tokens and a row of outputs is the product of their norms.

    Args:
        hessian: The mean of x xᵀ, shape (in, in).
        weight: All rows that read x, shape (out, in).

    Returns:
        Shape (in, in).

    Reference: Liu et al. 2024, equation 5.
    """
    return _squared_distances(hessian) * _squared_distances(weight.T @ weight) / 4


def _squared_distances(gram: torch.Tensor) -> torch.Tensor:
    own = gram.diagonal()
    return (own[:, None] + own - 2 * gram).clamp_(min=0)


def match(cost: torch.Tensor, parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the channels to merge and the channels to merge them into; None if there are too few.

    Bipartite soft matching: even channels, each with an edge to its nearest odd one; the n shortest edges, with n = Σ(T_i − 1),
    so that the width stays. Channels that are taken apart are left out. Several even channels may be merged into the same odd
    one.

    Args:
        cost: `distances`, shape (in, in).
        parts: `copies`, shape (in,).

    Returns:
        Two tensors of shape (n,).

    Reference: Liu et al. 2024, appendix A.
    """
    n = int((parts - 1).sum())
    whole = torch.nonzero(parts == 1).flatten()
    even, odd = whole[whole % 2 == 0], whole[whole % 2 == 1]
    if n > len(even) or (n and not len(odd)):
        return None
    if n == 0:
        return whole[:0], whole[:0]
    shortest, nearest = cost[even][:, odd].min(dim=1)
    chosen = shortest.argsort(stable=True)[:n]
    return even[chosen], odd[nearest[chosen]]


def reassemble(cost: torch.Tensor, parts: torch.Tensor) -> Reassembly | None:
    """Return the reassembly that takes channels apart into `parts` (in,) copies; None if too few are left to be merged."""
    pairs = match(cost, parts)
    if pairs is None:
        return None
    merged, into = pairs
    members = torch.ones_like(parts).index_add(0, into, torch.ones_like(into))
    copied = torch.repeat_interleave(parts - 1)  # channel i, T_i − 1 times
    divisors = torch.where(members > 1, members, parts).index_copy(0, merged, parts[copied])
    return Reassembly(merged, into, copied, divisors.float())


def disassemble(parts: torch.Tensor) -> Reassembly:
    """Return the disassembly that takes channels apart into `parts` (in,) copies and merges none."""
    none = torch.empty(0, dtype=torch.long, device=parts.device)
    return Reassembly(none, none, torch.repeat_interleave(parts - 1), parts.float())


def expanded(largest: torch.Tensor, expansion: float, steps: int = 1000) -> torch.Tensor:
    """Return `copies` for the lowest threshold of `grid` with Σ(T_i − 1) ≤ expansion · in, shape (in,) int64.

    Args:
        largest: The largest magnitude of each channel, shape (in,).
        expansion: The paper's γ, the share of channels that is added.
        steps: How many thresholds are tried.
    """
    fitting = [parts for parts in grid(largest, steps) if (parts - 1).sum() <= expansion * len(largest)]
    return fitting[-1]


def grid(largest: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """Return the different `copies` for θ = min M + p/P · (max M − min M), p = P … 1; the first are all ones.

    Args:
        largest: The largest magnitude M of each channel, shape (in,).
        steps: P.

    Raises:
        UserError: If a magnitude is not finite.

    Reference: Liu et al. 2024, algorithm 1.
    """
    low, high = largest.min().item(), largest.max().item()
    if not largest.isfinite().all():
        raise UserError("Channels whose largest magnitude is NaN or infinite cannot be reassembled.")
    choices = [torch.ones_like(largest, dtype=torch.long)]
    for p in range(steps - 1, 0, -1):
        threshold = low + p / steps * (high - low)
        parts = copies(largest, threshold) if threshold > 0 else choices[-1]
        if not torch.equal(parts, choices[-1]):
            choices.append(parts)
    return choices
