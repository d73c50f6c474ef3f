"""Channel reassembly (QLLM, Liu et al. 2024, section 4.1): outlier channels are spread over slots that similar ones give up.

The width stays: as many pairs of similar channels are merged as outlier channels have copies.
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
    """How channels are reassembled: x'_j is the sum of what is in slot j, divided by d_j; W'_j the sum of its columns.

    A slot holds its own channel; that of a merged channel holds a copy of an outlier channel instead, and the channel itself
    is added to another slot. For an outlier channel d is the number of its copies, T; for a slot with merged channels their
    number.
    """

    merged: torch.Tensor  # (n,) int64: channels that give up their slots, each once
    into: torch.Tensor  # (n,) int64: the slots that they are added to
    copied: torch.Tensor  # (n,) int64: the outlier channels that take the freed slots
    divisors: torch.Tensor  # (in,) float32, whole numbers from 1

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """ReassembledInput inputs (…, in) of inputs (…, in)."""
        return self._moved(x) / self.divisors.to(x)

    def weight(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight (out, in) that reads reassembled inputs: x'W'ᵀ = xWᵀ but for what merging costs."""
        return self._moved(weight)

    def _moved(self, values: torch.Tensor) -> torch.Tensor:
        merged, into, copied = (one.to(values.device) for one in (self.merged, self.into, self.copied))
        found = values.index_copy(-1, merged, values.index_select(-1, copied))
        return found.index_add(-1, into, values.index_select(-1, merged))

    @property
    def changes_channels(self) -> bool:
        return len(self.copied) > 0

    @property
    def most_copies(self) -> int:
        """The largest T_i; 1: no channel was taken apart."""
        return int(self.divisors[self.copied].max()) if len(self.copied) else 1

    def cpu(self) -> Reassembly:
        return Reassembly(**{key: tensor.cpu() for key, tensor in vars(self).items()})


@dataclass(frozen=True)
class ReassembledInput:
    """Layers that read one input, how its channels are reassembled, and what the search of the threshold found."""

    layers: list[str]
    reassembly: Reassembly
    searched: dict[str, float]  # as `reassembly_search.search` returns it, and on how many tokens

    @torch.no_grad()
    def apply(self, module_of: Callable[[str], nn.Module]) -> None:
        """Change the weights of modules, found by name; their inputs are left to the layers' hooks (`InferenceRounding`).

        Raises UserError where accelerate keeps a weight elsewhere: a copy into it would do nothing.
        """
        for name in self.layers:
            weight = matrix(module_of(name))
            if weight.is_meta and self.reassembly.changes_channels:
                raise UserError(f"{name} is offloaded, where it cannot be reassembled: give model.max_memory more.")
            weight.copy_(self.reassembly.weight(weight))


def copies(largest: torch.Tensor, threshold: float) -> torch.Tensor:
    """T_i = max(1, ⌈M_i / θ⌉) of channels whose largest magnitudes are M (in,): into how many each is taken apart, int64."""
    return (largest.double() / threshold).ceil().clamp(min=1).long()


def distances(hessian: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What merging each pair of channels costs, (in, in): D_ij = ‖½ (x_i − x_j)(W_i − W_j)‖² (equation 5), a token's mean.

    hessian: the mean of x xᵀ, (in, in); weight: all rows that read x, (out, in). The norm of a product of a column of tokens
    and a row of outputs is the product of their norms.
    """
    return _squared_distances(hessian) * _squared_distances(weight.T @ weight) / 4


def _squared_distances(gram: torch.Tensor) -> torch.Tensor:
    own = gram.diagonal()
    return (own[:, None] + own - 2 * gram).clamp_(min=0)


def match(cost: torch.Tensor, parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Which channels to merge and into which, (n,) both: n = Σ(T_i − 1), so that the width stays. None: there are too few.

    Bipartite soft matching (appendix A): even channels, each with an edge to its nearest odd one; the n shortest edges.
    Channels that are taken apart take no part. Several even channels may be merged into the same odd one.

    cost: `distances` (in, in); parts: `copies` (in,).
    """
    n = int((parts - 1).sum())
    whole = torch.nonzero(parts == 1).flatten()
    ours, theirs = whole[whole % 2 == 0], whole[whole % 2 == 1]
    if n > len(ours) or (n and not len(theirs)):
        return None
    if n == 0:
        return whole[:0], whole[:0]
    shortest, nearest = cost[ours][:, theirs].min(dim=1)
    chosen = shortest.argsort(stable=True)[:n]
    return ours[chosen], theirs[nearest[chosen]]


def reassemble(cost: torch.Tensor, parts: torch.Tensor) -> Reassembly | None:
    """The reassembly that takes channels apart into `parts` (in,) copies; None where too few are left to be merged."""
    pairs = match(cost, parts)
    if pairs is None:
        return None
    merged, into = pairs
    members = torch.ones_like(parts).index_add(0, into, torch.ones_like(into))
    copied = torch.repeat_interleave(parts - 1)  # channel i, T_i − 1 times
    divisors = torch.where(members > 1, members, parts).index_copy(0, merged, parts[copied])
    return Reassembly(merged, into, copied, divisors.float())


def grid(largest: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """The different `copies` that θ = min M + p/P · (max M − min M), p = P … 1, makes (algorithm 1); the first are all ones.

    largest: M (in,), finite. Raises UserError where it is not.
    """
    low, high = largest.min().item(), largest.max().item()
    if not largest.isfinite().all():
        raise UserError("Channels whose largest magnitude is NaN or infinite cannot be reassembled.")
    found = [torch.ones_like(largest, dtype=torch.long)]
    for p in range(steps - 1, 0, -1):
        threshold = low + p / steps * (high - low)
        parts = copies(largest, threshold) if threshold > 0 else found[-1]
        if not torch.equal(parts, found[-1]):
            found.append(parts)
    return found
