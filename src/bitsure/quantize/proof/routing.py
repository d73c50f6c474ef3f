"""What the gates of a mixture of experts decide before and after quantization, and whether that explains the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy import stats
from torch import nn

from bitsure.quantize.walk.blocks import Feed, walk
from bitsure.quantize.walk.mixtures import SeparateExperts, expert_lists
from bitsure.quantize.walk.targets import find_blocks
from bitsure.results.experts import RoutingChange, WindowMean

LEVEL = 0.95


@dataclass
class RoutedText:
    """What a mixture of experts makes of text."""

    decisions: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)
    """List of experts → the numbers and the weights of each token's experts, (tokens, k) both, by batch."""
    probabilities: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """Of each window's next tokens, (windows, seqlen − 1) float64."""

    def sets(self, name: str) -> torch.Tensor:
        """Return the numbers of each token's experts in ascending order, (tokens, k)."""
        return torch.cat([numbers for numbers, _ in self.decisions[name]]).sort(-1).values


@torch.no_grad()
def route(model: nn.Module, windows: torch.Tensor, given: RoutedText | None = None) -> RoutedText:
    """Run text through a model whose experts are separate.

    Args:
        model: The model, with its hooks.
        windows: Token ids, shape (n, seqlen).
        given: Decisions to use instead of the gates' own; the gates' are returned all the same.
    """
    text = RoutedText()

    def watch(name: str) -> Any:
        batch = iter(given.decisions[name] if given else ())

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            states, numbers, weights = args
            text.decisions.setdefault(name, []).append((numbers.cpu(), weights.cpu()))
            if given is None:
                return args
            return states, *(tensor.to(states.device) for tensor in next(batch))

        return hook

    feeds: list[Feed] = []  # of all blocks, which share their batches
    with ExitStack() as stack:
        for prefix, block, feed in walk(model, windows):
            feeds.append(feed)
            for name, experts in expert_lists(block).items():
                if isinstance(experts, SeparateExperts):
                    stack.callback(experts.register_forward_pre_hook(watch(f"{prefix}.{name}")).remove)
    text.probabilities = _next_token_probabilities(model, windows, feeds[-1])
    return text


def _next_token_probabilities(model: Any, windows: torch.Tensor, feed: Feed) -> torch.Tensor:
    """Return the probabilities of each window's next tokens by the hidden states after the last block, (n, seqlen − 1)."""
    parts = []
    with _stand_ins(model) as states_after:
        for states, ids in zip(feed.batches, torch.split(windows, len(feed.batches[0])), strict=True):
            states_after[:] = [(states,) if feed.as_tuple else states]
            logits = model(input_ids=ids.to(states.device), use_cache=False).logits[:, :-1].float()
            true = logits.gather(-1, ids[:, 1:, None].to(logits.device))[..., 0]
            parts.append((true - logits.logsumexp(-1)).double().exp().cpu())
    return torch.cat(parts)


@contextmanager
def _stand_ins(model: nn.Module) -> Iterator[list[Any]]:
    """Let every block return the one element of the list that is yielded."""
    after: list[Any] = []
    _, blocks = find_blocks(model)
    for block in blocks:
        block.forward = lambda *args, **kwargs: after[0]
    try:
        yield after
    finally:
        for block in blocks:
            del block.forward


def routing_change(full: RoutedText, quantized: RoutedText, same_experts: RoutedText) -> RoutingChange:
    """Return what quantization changes in the gates' decisions, and what that costs.

    Args:
        full: The text in full precision.
        quantized: The same text in the quantized model.
        same_experts: The same in the quantized model with the decisions of `full`.
    """
    changed = {name: (full.sets(name) != quantized.sets(name)).any(-1) for name in full.decisions}
    windows, places = len(full.probabilities), full.probabilities.shape[1]
    shares = torch.stack(list(changed.values())).view(len(changed), windows, -1)
    elsewhere = shares.any(0)[:, :places]
    loss, same = full.probabilities - quantized.probabilities, full.probabilities - same_experts.probabilities
    return RoutingChange(
        changed=_mean(shares.double().mean((0, 2)), least=0.0),
        layers={name: share.double().mean().item() for name, share in changed.items()},
        loss=_mean(loss.mean(1)),
        loss_same_experts=_mean(same.mean(1)),
        loss_by_routing=_mean((loss - same).mean(1)),
        loss_where_changed=_mean_where(loss, elsewhere),
        loss_where_same=_mean_where(loss, ~elsewhere),
    )


def _mean_where(values: torch.Tensor, chosen: torch.Tensor) -> WindowMean | None:
    """Return the mean over windows (n, places) of the means at chosen places; None if there are none."""
    means = [values[i][chosen[i]].mean() for i in range(len(values)) if chosen[i].any()]
    return _mean(torch.stack(means)) if means else None


def _mean(values: torch.Tensor, least: float = -1.0) -> WindowMean:
    """Return the mean of values of windows, (n,), from `least` to 1, with its t interval as far as it lies in that range."""
    mean, n = values.mean().item(), len(values)
    if n < 2:
        return WindowMean(value=mean, ci_low=None, ci_high=None, windows=n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * values.std().item() / n**0.5
    return WindowMean(value=mean, ci_low=max(least, mean - half), ci_high=min(1.0, mean + half), windows=n)
