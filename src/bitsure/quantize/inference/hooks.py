"""Hooks that make a model follow its inference scheme: they scale and round layers' inputs, and round keys and values.

They are forward pre-hooks of the blocks and their linear layers, so that they act whoever runs a block: the scoring engine,
the harness's own loop, and the calibration that goes through the model block by block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from bitsure.base.errors import UserError
from bitsure.quantize.inference.input_transform import InputTransform, scheme_transform
from bitsure.quantize.inference.keys_values import ChangingCache, KeysAndValues, cache_parameter, rounding
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.mixtures import expert_lists
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import find_blocks, linears, matrix

Arguments = tuple[Any, ...]


class InferenceRounding:
    """The hooks of one model.

    They can be paused, layers that read the same tensor share its transformed copy, and they record which layers' inputs and
    which blocks' keys and values were rounded. Without any hook it stands for a model that rounds nothing while it runs.
    """

    def __init__(self) -> None:
        self.paused = False
        self.transforms: dict[nn.Module, InputTransform] = {}
        self.to_round: dict[nn.Module, str] = {}
        """Layers and blocks → the name of what is rounded there."""
        self.reached: set[nn.Module] = set()
        """Layers and blocks that rounded something since this was last cleared."""
        self._last: tuple[object, object, torch.Tensor | None] = (None, None, None)  # last input, its transform, the result

    def on_layers(
        self,
        layers: list[nn.Module],
        transform: InputTransform,
        replay: Replay | None = None,
        experts: nn.Module | None = None,
    ) -> None:
        """Transform the input of layers that read the same one.

        Args:
            layers: The layers.
            transform: What is done.
            replay: Keeps the result from one pass to the next.
            experts: The list of experts that the layers belong to, which is reached with any of them.
        """
        compute = transform if replay is None else partial(replay.input_of, transform)

        def hook(layer: nn.Module, inputs: Arguments) -> Arguments | None:
            if self.paused and transform.numbers is not None:
                return self._replace(inputs, dataclasses.replace(transform, numbers=None))
            self.reached.add(layer if experts is None else experts)
            if replay is not None and replay.answers_now(layer):
                return None
            return self._replace(inputs, compute)

        self.transforms |= dict.fromkeys(layers, transform)
        for layer in layers:
            layer.register_forward_pre_hook(hook)

    def _replace(self, inputs: Arguments, compute: Callable[[torch.Tensor], torch.Tensor]) -> Arguments:
        if self._last[0] is not inputs[0] or self._last[1] is not compute:
            self._last = (inputs[0], compute, compute(inputs[0]))
        return (self._last[2], *inputs[1:])

    def on_keys_and_values(
        self, block: nn.Module, change: Callable[[torch.Tensor, torch.Tensor], KeysAndValues]
    ) -> RemovableHandle:
        """Give a block's attention what `change` makes of its keys and values. Raises UserError if the block takes no cache."""
        name, place = cache_parameter(block)

        def update(keys: torch.Tensor, values: torch.Tensor) -> KeysAndValues:
            self.reached.add(block)
            return change(keys, values)

        def hook(block: nn.Module, args: Arguments, kwargs: dict[str, Any]) -> tuple[Arguments, dict[str, Any]] | None:
            if self.paused:
                return None
            if len(args) > place:
                return (*args[:place], ChangingCache(update, args[place]), *args[place + 1 :]), kwargs
            return args, kwargs | {name: ChangingCache(update, kwargs.get(name))}

        return block.register_forward_pre_hook(hook, with_kwargs=True)

    def check_reached(self) -> None:
        """Raise UserError naming what should have been rounded since `reached` was cleared, and was not."""
        if missed := [name for module, name in self.to_round.items() if module not in self.reached]:
            raise UserError(
                f"The model that is scored does not round {len(missed)} of {len(self.to_round)}: {', '.join(missed)}. No score "
                "is taken from such a model."
            )

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Round nothing inside the `with` block; inputs are still scaled."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False


def attach(model: nn.Module, scheme: InferenceScheme, factors: Mapping[str, torch.Tensor] | None = None) -> InferenceRounding:
    """Make a model follow an inference scheme.

    Args:
        model: A decoder, whose weights already fit the scheme's divisions and reassembly.
        scheme: What the model does while it runs.
        factors: Layer → what its input is multiplied by, shape (in,), besides the scheme's divisions.

    Returns:
        The hooks, which scoring needs to pause and to check them.
    """
    hooks = InferenceRounding()
    prefix, blocks = find_blocks(model)
    for number, block in enumerate(blocks):
        attach_block(hooks, f"{prefix}.{number}", block, scheme, factors or {})
    return hooks


def attach_block(
    hooks: InferenceRounding, prefix: str, block: nn.Module, scheme: InferenceScheme, factors: Mapping[str, torch.Tensor]
) -> None:
    """Make one block follow an inference scheme, as `attach` does; `prefix` is the block's name."""
    if scheme.kv is not None:
        hooks.on_keys_and_values(block, rounding(scheme.kv, scheme.rotations.keys_and_values, block))
        hooks.to_round[block] = f"the keys and values of {prefix}"
    known: list[tuple[InputTransform, InputTransform]] = []  # as the scheme has them, and on their layers' device
    lists = expert_lists(block)
    for inner, layer in linears(block).items():
        transform = scheme_transform(scheme, f"{prefix}.{inner}", factors.get(f"{prefix}.{inner}"))
        if transform is None:
            continue
        # Layers that share one transform object share its result.
        moved = next((moved for other, moved in known if other.same_as(transform)), None) or transform.on(matrix(layer).device)
        known.append((transform, moved))
        place = next((name for name in lists if inner.startswith(f"{name}.")), None)
        hooks.on_layers([layer], moved, experts=None if place is None else lists[place])
        if transform.numbers is not None:
            hooks.to_round[layer if place is None else lists[place]] = f"the input of {prefix}.{place or inner}"
