"""Keeping the outputs and inputs of a block's finished modules, so that no pass through the block computes them twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.base.resources import free_memory
from bitsure.quantize.walk.targets import linears

# Times the memory of the hidden states: an attention's output, two of a gated feed-forward layer, the input of the last one.
KEPT = 13
SHARE = 0.25  # of free memory, at most; what does not fit is computed again


class Replay:
    """Watch a block that runs on the same batches again and again while its layers are replaced one after the other.

    A module whose layers are all final returns its outputs from memory, from the second pass after the last one became final;
    until then the modules inside it do. In the first of these passes, layers read the inputs that `input_of` kept in the pass
    before.
    """

    def __init__(self, block: nn.Module, hidden: list[torch.Tensor]) -> None:
        self.block, self.batches = block, len(hidden)
        device = next(block.parameters()).device
        self.most_bytes = min(KEPT * _bytes(tuple(hidden)), SHARE * free_memory(device))
        self.calls = -1
        self.kept: dict[str, dict[int, object]] = {}
        """Module → batch → output."""
        self.answers: dict[nn.Module, Callable[[], bool]] = {}
        """Module → whether it returns its output from memory now."""
        self.inputs: dict[int, tuple[object, torch.Tensor]] = {}
        """Batch → the transform that computed an input, and the input."""
        self.handle = block.register_forward_pre_hook(self._count)

    def finish(self, layers: set[str]) -> None:
        """Declare linear layers final, by their names in the block."""
        complete = {
            name
            for name, module in self.block.named_modules()
            if name and (inside := _layers(name, module)) and inside <= layers
        }
        for name in complete - self.kept.keys():
            if not any(name.startswith(f"{other}.") for other in complete):
                self._watch(name)

    def answers_now(self, layer: nn.Module) -> bool:
        """Return whether a layer returns its output from memory, whatever it reads."""
        return layer in self.answers and self.answers[layer]()

    def input_of(self, change: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Return change(x), computed in one pass and kept for the next; nothing before it may be replaced in between."""
        kept = self.inputs.pop(self._batch(), None)
        if kept is not None and kept[0] is change:
            return kept[1]
        changed = change(x)
        if self._bytes() + _bytes(changed) < self.most_bytes:
            self.inputs[self._batch()] = change, changed
        return changed

    def forget(self) -> None:
        """Release all memory and the block."""
        for name in list(self.kept):
            self._release(name)
        self.inputs.clear()
        self.most_bytes = 0
        self.handle.remove()

    def _count(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.calls += 1

    def _batch(self) -> int:
        return self.calls % self.batches

    def _watch(self, name: str) -> None:
        module = self.block.get_submodule(name)
        kept: dict[int, object] = {}
        versions: dict[int, list[int]] = {}
        compute, ran_in = module.forward, -1

        def answers() -> bool:
            batch = self._batch()
            return batch in kept and versions[batch] == _versions(kept[batch])

        def forward(*args: Any, **kwargs: Any) -> object:
            nonlocal ran_in
            if ran_in == self.calls:
                raise UserError(
                    f"{name} runs twice in one pass through its block, which calibration cannot tell apart. "
                    "quant=rtn4 needs none."
                )
            ran_in, batch = self.calls, self._batch()
            if answers():
                return kept[batch]
            kept.pop(batch, None)  # Its reader changed it in place.
            out: object = compute(*args, **kwargs)
            inside = [self.kept[other] for other in self.kept if other.startswith(f"{name}.")]
            freed = sum(_bytes(outputs[batch]) for outputs in inside if batch in outputs)
            if self._bytes() - freed + _bytes(out) <= self.most_bytes:
                kept[batch], versions[batch] = out, _versions(out)
                for outputs in inside:  # Nothing asks for them again.
                    outputs.pop(batch, None)
            return out

        module.forward = forward
        self.kept[name], self.answers[module] = kept, answers

    def _release(self, name: str) -> None:
        module = self.block.get_submodule(name)
        del module.forward  # The class's own is used again.
        del self.kept[name], self.answers[module]

    def _bytes(self) -> int:
        outputs = sum(_bytes(out) for kept in self.kept.values() for out in kept.values())
        return outputs + sum(_bytes(changed) for _, changed in self.inputs.values())


def _layers(name: str, module: nn.Module) -> set[str]:
    return {".".join(filter(None, [name, inner])) for inner in linears(module)}


def _tensors(out: object) -> list[torch.Tensor]:
    return [part for part in (out if isinstance(out, tuple | list) else (out,)) if isinstance(part, torch.Tensor)]


def _bytes(out: object) -> int:
    return sum(part.numel() * part.element_size() for part in _tensors(out))


def _versions(out: object) -> list[int]:
    """Return how often each tensor was changed in place."""
    return [part._version for part in _tensors(out)]
