"""What a block's finished modules gave is kept, so that no pass through the block computes it twice."""

from __future__ import annotations

import torch
from torch import nn

from bitsure.costs import free_memory
from bitsure.quantize.targets import linears

KEPT = 5  # times what the hidden states take: an attention's output and a feed-forward layer's
SHARE = 0.25  # of free memory, at the most; what does not fit is computed again


class Replay:
    """Watches a block that is run on the same batches again and again while its layers are replaced one after the other.

    Modules whose layers are all final give their outputs from memory, from the second pass after they became so; till then
    those inside them do.
    """

    def __init__(self, block: nn.Module, hidden: list[torch.Tensor]):
        self.block, self.batches = block, len(hidden)
        device = next(block.parameters()).device
        self.most_bytes = min(KEPT * _bytes(tuple(hidden)), SHARE * free_memory(device))
        self.calls = -1
        self.kept: dict[str, dict[int, object]] = {}  # module → batch → output
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

    def forget(self) -> None:
        for name in list(self.kept):
            self._release(name)
        self.handle.remove()

    def _count(self, block, inputs) -> None:
        self.calls += 1

    def _watch(self, name: str) -> None:
        module, kept, versions = self.block.get_submodule(name), {}, {}
        compute = module.forward

        def forward(*args, **kwargs):
            batch = self.calls % self.batches
            if batch in kept and versions[batch] == _versions(kept[batch]):
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
        self.kept[name] = kept

    def _release(self, name: str) -> None:
        del self.block.get_submodule(name).forward  # the class's own again
        del self.kept[name]

    def _bytes(self) -> int:
        return sum(_bytes(out) for kept in self.kept.values() for out in kept.values())


def _layers(name: str, module: nn.Module) -> set[str]:
    return {".".join(filter(None, [name, inner])) for inner in linears(module)}


def _tensors(out: object) -> list[torch.Tensor]:
    return [part for part in (out if isinstance(out, tuple) else (out,)) if isinstance(part, torch.Tensor)]


def _bytes(out: object) -> int:
    return sum(part.numel() * part.element_size() for part in _tensors(out))


def _versions(out: object) -> list[int]:
    """How often each tensor was changed in place."""
    return [part._version for part in _tensors(out)]
