"""Hooks that make a model follow its inference scheme: they scale and round layers' inputs, and round keys and values.

They are forward pre-hooks of the blocks and their linear layers, so that they act whoever runs a block: the scoring engine,
the harness's own loop, and the calibration that goes through the model block by block.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from bitsure.base.errors import UserError
from bitsure.config.number_formats import AtRunTime, KeysValues
from bitsure.quantize.inference.orthogonal import Orthogonal
from bitsure.quantize.inference.reassembly import Reassembly
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.walk.mixtures import expert_lists
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import find_blocks, linears, matrix
from bitsure.quantize.weights.fake_quantize import fake_quantize

KeysAndValues = tuple[torch.Tensor, torch.Tensor]
Arguments = tuple[Any, ...]
CACHE_PARAMETERS = ("past_key_values", "layer_past")


@dataclass(frozen=True)
class InputTransform:
    """What a layer's input x becomes before its weight reads it: Q(R(x · rotation / divisor) · factor), and R's last step."""

    factor: torch.Tensor | None = None
    """Shape (in,)."""
    numbers: AtRunTime | None = None
    """The number format of Q; None: no rounding."""
    static_range: torch.Tensor | None = None
    """(low, high), shape (2,), of Q where one scale is fixed for the whole tensor."""
    divisor: torch.Tensor | None = None
    """Shape (in,)."""
    reassembly: Reassembly | None = None
    """R."""
    rotation: Orthogonal | None = None
    """Rotates the input's channels."""

    def same_as(self, other: InputTransform) -> bool:
        """Return whether two transforms do the same, tensors compared by their values."""
        tensors = all(_equal(getattr(self, key), getattr(other, key)) for key in ("factor", "static_range", "divisor"))
        objects = self.reassembly is other.reassembly and self.rotation is other.rotation
        return tensors and objects and self.numbers == other.numbers

    def on(self, device: torch.device) -> InputTransform:
        """Return the same with tensors on a device; unchanged on meta, where accelerate brings weights when they are needed.

        What is elsewhere than the inputs is copied to them in every batch, and a GPU is waited for.
        """
        if device.type == "meta":
            return self
        return InputTransform(
            None if self.factor is None else self.factor.to(device),
            self.numbers,
            None if self.static_range is None else self.static_range.to(device),
            None if self.divisor is None else self.divisor.to(device),
            None if self.reassembly is None else self.reassembly.on(device),
            None if self.rotation is None else self.rotation.on(device),
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the transformed input, of the shape (…, in) and the type of x."""
        x = self.before_rounding(x)
        if self.numbers is not None:
            x = fake_quantize(x, self.numbers, self.static_range)
        return x if self.reassembly is None else self.reassembly.after_rounding(x)

    def before_rounding(self, x: torch.Tensor) -> torch.Tensor:
        """Return what Q rounds, of the shape (…, in) and the type of x."""
        if self.rotation is not None:
            x = self.rotation(x)
        if self.divisor is not None:
            x = (x / self.divisor.to(x.device)).to(x.dtype)
        if self.reassembly is not None:
            x = self.reassembly.inputs(x)
        if self.factor is not None:
            x = (x * self.factor.to(x.device)).to(x.dtype)
        return x


def _equal(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    return first is second or (first is not None and second is not None and torch.equal(first, second))


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


class ChangingCache:
    """Change keys and values before the cache of past ones keeps them, so that attention reads what was changed.

    Args:
        change: Changes new keys and values.
        cache: The model's own cache, which answers that are written need; None where whole inputs are run at once, whose keys
            and values are all new.
    """

    is_compileable = False

    def __init__(self, change: Callable[[torch.Tensor, torch.Tensor], KeysAndValues], cache: Any) -> None:
        self.change, self.cache = change, cache

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> KeysAndValues:
        """Change keys and values (batch, heads, tokens, width of a head), after rotary embeddings, and return all there are."""
        changed = self.change(keys, values)
        if self.cache is None:
            return changed
        kept: KeysAndValues = self.cache.update(*changed, *args, **kwargs)
        return kept

    def get_seq_length(self, *args: Any) -> int:
        """Return how many tokens are cached."""
        return 0 if self.cache is None else int(self.cache.get_seq_length(*args))


def check_keys_and_values(numbers: KeysValues, model: nn.Module) -> None:
    """Raise UserError if a model (without weights) has no keys and values to round, or heads that groups do not divide."""
    cache_parameter(find_blocks(model)[1][0])
    config: Any = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if numbers.group_size is not None and numbers.group_size > 0 and width % numbers.group_size:
        raise UserError(
            f"quant.kv: the model's heads are {width} wide, which groups of {numbers.group_size} do not divide. "
            f"Give quant.kv.group_size=-1 for one group a head, or a number that divides {width}"
            + (f"; {numbers.format} has blocks of {numbers.group_size}." if numbers.format != "int" else ".")
        )


def rounding(
    numbers: KeysValues, rotation: Orthogonal | None, block: nn.Module
) -> Callable[[torch.Tensor, torch.Tensor], KeysAndValues]:
    """Return the function that rounds a block's keys and values to a number format, rotated by `rotation` meanwhile."""
    device = next(block.parameters()).device
    if rotation is not None and device.type != "meta":
        rotation = rotation.on(device)

    def rounded(states: torch.Tensor) -> torch.Tensor:
        if rotation is None:
            return fake_quantize(states, numbers)
        return rotation.back(fake_quantize(rotation(states), numbers))

    return lambda keys, values: (rounded(keys), rounded(values))


def cache_parameter(block: nn.Module) -> tuple[str, int]:
    """Return the name of a block's cache parameter and its place among the arguments. Raises UserError if it has none."""
    names = list(inspect.signature(type(block).forward).parameters)[1:]
    for name in CACHE_PARAMETERS:
        if name in names:
            return name, names.index(name)
    raise UserError(
        f"quant.kv: the blocks of this model ({type(block).__name__}) take no cache of keys and values, where they are "
        f"rounded. Leave quant.kv out."
    )


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
        transform = input_transform(scheme, f"{prefix}.{inner}", factors.get(f"{prefix}.{inner}"))
        if transform is None:
            continue
        # Layers that share one transform object share its result.
        moved = next((moved for other, moved in known if other.same_as(transform)), None) or transform.on(matrix(layer).device)
        known.append((transform, moved))
        place = next((name for name in lists if inner.startswith(f"{name}.")), None)
        hooks.on_layers([layer], moved, experts=None if place is None else lists[place])
        if transform.numbers is not None:
            hooks.to_round[layer if place is None else lists[place]] = f"the input of {prefix}.{place or inner}"


def input_transform(scheme: InferenceScheme, layer: str, factor: torch.Tensor | None) -> InputTransform | None:
    """Return what a scheme does to a layer's input; None if it does nothing."""
    divisor = next((each.scales for each in scheme.divisions if each.source is None and layer in each.layers), None)
    transform = InputTransform(
        factor,
        scheme.activations,
        scheme.static_ranges.get(layer),
        divisor,
        scheme.reassembly_of(layer),
        scheme.rotations.input_rotation(layer),
    )
    return transform if any(value is not None for value in vars(transform).values()) else None
