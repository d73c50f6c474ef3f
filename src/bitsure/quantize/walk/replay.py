"""What a block's finished modules gave, and what they read, is kept, so that no pass through the block computes it twice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.base.resources import free_memory
from bitsure.quantize.walk.targets import linears

KEPT = (
    13  # times what the hidden states take: an attention's output, two of a gated feed-forward layer, what the last one reads
)
SHARE = 0.25  # of free memory, at the most; what does not fit is computed again


class Replay:
    """Watches a block that is run on the same batches again and again while its layers are replaced one after the other.

    Modules whose layers are all final give their outputs from memory, from the second pass after they became so; till then
    those inside them do. In the first pass after they became so, layers read what `input_of` kept in the pass before.
    """

    def __init__(self, block: nn.Module, hidden: list[torch.Tensor]):
        self.block, self.batches = block, len(hidden)
        device = next(block.parameters()).device
        self.most_bytes = min(KEPT * _bytes(tuple(hidden)), SHARE * free_memory(device))
        self.calls = -1
        self.kept: dict[str, dict[int, object]] = {}  # module → batch → output
        self.answers: dict[nn.Module, Callable[[], bool]] = {}  # whether a module gives its output from memory now
        self.read: dict[int, tuple[object, torch.Tensor]] = {}  # batch → what made an input, and that
        self.handle = block.register_forward_pre_hook(self._count)

    def finish(self, layers: set[str]) -> None:
        """Say which linear layers are final, by their names in the block."""
        complete = {
            name
            for name, module in self.block.named_modules()
            if name and (inside := _layers(name, module)) and inside <= layers
        }
        for name in complete - self.kept.keys():
            if not any(name.startswith(f"{other}.") for other in complete):
                self._watch(name)

    def answers_now(self, layer: nn.Module) -> bool:
        """Whether a layer gives its output from memory, whatever it reads."""
        return layer in self.answers and self.answers[layer]()

    def input_of(self, change: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """change(x), computed in one pass and given again in the next; nothing before it may be replaced in between."""
        by, made = self.read.pop(self._batch(), (None, None))
        if by is not change:
            made = change(x)
            if self._bytes() + _bytes(made) < self.most_bytes:
                self.read[self._batch()] = change, made
        return made

    def forget(self) -> None:
        for name in list(self.kept):
            self._release(name)
        self.read.clear()
        self.most_bytes = 0
        self.handle.remove()

    def _count(self, block, inputs) -> None:
        self.calls += 1

    def _batch(self) -> int:
        return self.calls % self.batches

    def _watch(self, name: str) -> None:
        module, kept, versions = self.block.get_submodule(name), {}, {}
        compute, ran_in = module.forward, -1

        def answers() -> bool:
            batch = self._batch()
            return batch in kept and versions[batch] == _versions(kept[batch])

        def forward(*args, **kwargs):
            nonlocal ran_in
            if ran_in == self.calls:
                raise UserError(f"{name} runs twice in one pass through its block, which calibration cannot tell apart.")
            ran_in, batch = self.calls, self._batch()
            if answers():
                return kept[batch]
            kept.pop(batch, None)  # its reader changed it in place
            out = compute(*args, **kwargs)
            inside = [self.kept[other] for other in self.kept if other.startswith(f"{name}.")]
            freed = sum(_bytes(one[batch]) for one in inside if batch in one)
            if self._bytes() - freed + _bytes(out) <= self.most_bytes:
                kept[batch], versions[batch] = out, _versions(out)
                for one in inside:  # nothing asks them again
                    one.pop(batch, None)
            return out

        module.forward = forward
        self.kept[name], self.answers[module] = kept, answers

    def _release(self, name: str) -> None:
        module = self.block.get_submodule(name)
        del module.forward  # the class's own again
        del self.kept[name], self.answers[module]

    def _bytes(self) -> int:
        outputs = sum(_bytes(out) for kept in self.kept.values() for out in kept.values())
        return outputs + sum(_bytes(made) for _, made in self.read.values())


def _layers(name: str, module: nn.Module) -> set[str]:
    return {".".join(filter(None, [name, inner])) for inner in linears(module)}


def _tensors(out: object) -> list[torch.Tensor]:
    return [part for part in (out if isinstance(out, tuple) else (out,)) if isinstance(part, torch.Tensor)]


def _bytes(out: object) -> int:
    return sum(part.numel() * part.element_size() for part in _tensors(out))


def _versions(out: object) -> list[int]:
    """How often each tensor was changed in place."""
    return [part._version for part in _tensors(out)]
