"""What a mixture's experts read while their block runs, and where they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.walk.mixtures import SeparateExperts, expert_lists, reads_all


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; nothing waits for a copy to a GPU."""
    return tensor.to(device, non_blocking=device.type == "cuda")


@contextmanager
def on_demand(block: nn.Module, device: torch.device) -> Iterator[None]:
    """Move each expert of a block to a device when it runs and back afterwards, for the length of the `with` block."""
    homes: dict[nn.Module, list[torch.Tensor]] = {}

    def fetch(expert: nn.Module, inputs: tuple[Any, ...]) -> None:
        homes[expert] = [parameter.data for parameter in expert.parameters()]
        for parameter in expert.parameters():
            parameter.data = on_device(parameter.data, device)

    def put_back(expert: nn.Module, inputs: tuple[Any, ...], out: object) -> None:
        for parameter, home in zip(expert.parameters(), homes.pop(expert), strict=True):
            parameter.data = home

    with ExitStack() as stack:
        for experts in expert_lists(block).values():
            for expert in experts:
                stack.callback(expert.register_forward_pre_hook(fetch).remove)
                stack.callback(expert.register_forward_hook(put_back, always_call=True).remove)
        yield


@contextmanager
def idle_experts_reached(block: nn.Module) -> Iterator[None]:
    """At the end of the `with` block, run experts that no token was routed to on the last batch, so that their hooks see it."""
    last: dict[str, torch.Tensor] = {}
    reached: set[nn.Module] = set()

    def keep(name: str) -> Callable[[torch.Tensor], None]:
        return lambda x: last.update({name: x})

    def mark(expert: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs[0].numel():
            reached.add(expert)

    lists = expert_lists(block)
    with ExitStack() as stack:
        for name, experts in lists.items():
            stack.callback(_on_input(block, name, keep(name)))
            for expert in experts:
                stack.callback(expert.register_forward_pre_hook(mark).remove)
        yield
        for name, experts in lists.items():
            for expert in [each for each in experts if each not in reached]:
                expert(last[name])


@torch.no_grad()
def tokens_of_experts(block: nn.Module, name: str, feed: Callable[[], None], home: torch.device) -> list[torch.Tensor]:
    """Return what each expert of a list reads, (tokens, width) each, on a device; after `read_all` they share one tensor.

    Args:
        block: The block.
        name: The list's name in the block.
        feed: Runs the calibration text through the block.
        home: Where the tokens are kept.
    """
    experts = expert_lists(block)[name]
    all_tokens = reads_all(experts)
    read: dict[nn.Module, list[torch.Tensor]] = {expert: [] for expert in experts}
    whole: list[torch.Tensor] = []

    def keep(expert: nn.Module, inputs: tuple[Any, ...]) -> None:
        read[expert].append(inputs[0].detach().flatten(0, -2).to(home))

    with ExitStack() as stack:
        stack.callback(_on_input(block, name, lambda x: whole.append(x.to(home)) if all_tokens or not whole else None))
        if not all_tokens:
            for expert in experts:
                stack.callback(expert.register_forward_pre_hook(keep).remove)
        feed()
    if all_tokens:
        return [torch.cat(whole)] * len(read)
    return [torch.cat([whole[0][:0], *tokens]) for tokens in read.values()]


def _on_input(block: nn.Module, name: str, keep: Callable[[torch.Tensor], None]) -> Callable[[], None]:
    """Pass the tokens (n, width) that a list's experts are chosen for to `keep`; return what ends that.

    A list that is only a list is run by the module that has it, which is given the tokens.
    """
    experts = block.get_submodule(name)
    reader = experts if isinstance(experts, SeparateExperts) else block.get_submodule(name.rpartition(".")[0])

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if x is None:
            raise UserError(f"{type(module).__name__} is given no tensor, so that what its experts read is not known.")
        keep(x.detach().flatten(0, -2))

    return reader.register_forward_pre_hook(hook, with_kwargs=True).remove
