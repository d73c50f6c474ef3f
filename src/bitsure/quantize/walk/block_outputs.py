"""Passes that begin at a later block: what a whole pass computed before it is kept, and only the rest runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class BlockOutputs:
    """What a model's blocks return for one batch.

    Args:
        blocks: The model's blocks, which may be replaced between passes.
    """

    def __init__(self, blocks: nn.ModuleList) -> None:
        self._blocks = blocks
        self._kept: list[object] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what each block returns in the pass inside the `with` block."""
        self._kept = []
        handles = [
            block.register_forward_hook(lambda block, inputs, output: self._kept.append(_copied(output)))
            for block in self._blocks
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def begin_at(self, first: int) -> Iterator[None]:
        """Let a pass over the kept batch compute from block number `first` on; blocks before it return what was kept."""
        before = list(self._blocks)[:first]
        for number, block in enumerate(before):
            block.forward = self._stand_in(number)
        try:
            yield
        finally:
            for block in before:
                del block.forward  # The class's own is used again.

    def _stand_in(self, number: int) -> Callable[..., Any]:
        return lambda *args, **kwargs: _copied(self._kept[number])


def _copied(output: Any) -> Any:
    """Return a block's output with tensors of its own: some blocks add to their input in place."""
    if isinstance(output, torch.Tensor):
        return output.clone()
    return tuple(map(_copied, output)) if isinstance(output, tuple | list) else output
