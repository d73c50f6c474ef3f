"""How a model does at run time what its `Runtime` says: inputs of layers are scaled and rounded, keys and values are rounded.

All of it hangs on the blocks and their linear layers as forward pre-hooks, so that whatever runs a block runs it: the
scoring engine's trees and plain passes, the harness's own loop, the walk that calibrates.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from bitsure.base.errors import UserError
from bitsure.config.number_formats import AtRunTime, KeysValues
from bitsure.quantize.inference.reassembly import Reassembly
from bitsure.quantize.inference.scheme import Runtime, reassembly_of
from bitsure.quantize.walk.replay import Replay
from bitsure.quantize.walk.targets import find_blocks, linears
from bitsure.quantize.weights.fake_quantize import fake_quantize

Pair = tuple[torch.Tensor, torch.Tensor]
CACHES = ("past_key_values", "layer_past")  # what blocks call the cache of keys and values


@dataclass(frozen=True)
class Input:
    """What is done to the input x of a layer before its weight sees it: Q(R(x / divisor) · factor)."""

    factor: torch.Tensor | None = None  # (in,)
    numbers: AtRunTime | None = None
    span: torch.Tensor | None = None
    divisor: torch.Tensor | None = None  # (in,)
    reassembly: Reassembly | None = None

    def same_as(self, other: Input) -> bool:
        tensors = all(_equal(getattr(self, key), getattr(other, key)) for key in ("factor", "span", "divisor"))
        return tensors and self.numbers == other.numbers and self.reassembly is other.reassembly

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.divisor is not None:
            x = (x / self.divisor.to(x.device)).to(x.dtype)
        if self.reassembly is not None:
            x = self.reassembly.inputs(x)
        if self.factor is not None:
            x = (x * self.factor.to(x.device)).to(x.dtype)
        return x if self.numbers is None else fake_quantize(x, self.numbers, self.span)


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


class Hooks:
    """The hooks of one model: they can be paused, layers that read the same tensor share what is made of it, and they know
    which layers' inputs and which blocks' keys and values were rounded.
    """

    def __init__(self):
        self.paused = False
        self.last: tuple = (None, None, None)  # the tensor that was read last, what was done, and what it became
        self.changes: dict[nn.Module, Input] = {}  # of layers
        self.to_round: dict[nn.Module, str] = {}  # layers and blocks, and what of each is rounded
        self.reached: set[nn.Module] = set()  # by rounding, since it was last emptied

    def on_layers(self, layers: list[nn.Module], change: Input, replay: Replay | None = None) -> None:
        """Layers that read one input; `replay` keeps what is made of it from one pass to the next."""
        make = change if replay is None else partial(replay.input_of, change)

        def hook(layer: nn.Module, inputs: tuple) -> tuple | None:
            if self.paused and change.numbers is not None:
                return self._replace(inputs, dataclasses.replace(change, numbers=None))
            self.reached.add(layer)
            if replay is not None and replay.answers_now(layer):
                return None
            return self._replace(inputs, make)

        self.changes |= dict.fromkeys(layers, change)

        for layer in layers:
            layer.register_forward_pre_hook(hook)

    def _replace(self, inputs: tuple, make: Callable[[torch.Tensor], torch.Tensor]) -> tuple:
        if self.last[0] is not inputs[0] or self.last[1] is not make:
            self.last = (inputs[0], make, make(inputs[0]))
        return (self.last[2], *inputs[1:])

    def on_keys_and_values(self, block: nn.Module, change: Callable[[torch.Tensor, torch.Tensor], Pair]) -> RemovableHandle:
        """Give a block's attention what `change` makes of its keys and values. Raises UserError where it takes no cache."""
        name, place = cache_parameter(block)

        def update(keys: torch.Tensor, values: torch.Tensor) -> Pair:
            self.reached.add(block)
            return change(keys, values)

        cache = PassingCache(update)

        def hook(block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            if self.paused:
                return None
            if len(args) > place:
                return (*args[:place], cache, *args[place + 1 :]), kwargs
            return args, kwargs | {name: cache}

        return block.register_forward_pre_hook(hook, with_kwargs=True)

    def check_reached(self) -> None:
        """Raise UserError naming what should have been rounded since `reached` was emptied, and was not."""
        if missed := [name for module, name in self.to_round.items() if module not in self.reached]:
            raise UserError(
                f"The model that is scored does not round {len(missed)} of {len(self.to_round)}: {', '.join(missed)}. No score "
                "is taken from such a model."
            )

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Nothing is rounded in here; scales stay."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False


class PassingCache:
    """Stands where the cache of past keys and values would: attention reads what `update` gives back.

    Nothing is kept: scoring runs whole inputs at once, so that every key and value that attention reads is a new one.
    """

    is_compileable = False

    def __init__(self, change: Callable[[torch.Tensor, torch.Tensor], Pair]):
        self.change = change

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args, **kwargs) -> Pair:
        """Keys and values (batch, heads, tokens, width of a head), after rotary embeddings."""
        return self.change(keys, values)

    def get_seq_length(self, *args) -> int:
        return 0


def check_keys_and_values(numbers: KeysValues, model: nn.Module) -> None:
    """Raise UserError where a model (without weights) has none that can be rounded, or heads that groups do not divide."""
    cache_parameter(find_blocks(model)[1][0])
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if numbers.group_size > 0 and width % numbers.group_size:
        raise UserError(
            f"quant.kv: the model's heads are {width} wide, which groups of {numbers.group_size} do not divide. "
            f"Give quant.kv.group_size=-1 for one group a head, or a number that divides {width}"
            + (f"; {numbers.format} has blocks of {numbers.group_size}." if numbers.format != "int" else ".")
        )


def rounding(numbers: KeysValues) -> Callable[[torch.Tensor, torch.Tensor], Pair]:
    return lambda keys, values: (fake_quantize(keys, numbers), fake_quantize(values, numbers))


def cache_parameter(block: nn.Module) -> tuple[str, int]:
    """What a block calls the cache, and its place among the arguments. Raises UserError where it takes none."""
    names = list(inspect.signature(type(block).forward).parameters)[1:]
    found = [name for name in CACHES if name in names]
    if not found:
        raise UserError(
            f"quant.kv: the blocks of this model ({type(block).__name__}) take no cache of keys and values, where they are "
            f"rounded. Leave quant.kv out."
        )
    return found[0], names.index(found[0])


def attach(model: nn.Module, runtime: Runtime, factors: dict[str, torch.Tensor]) -> Hooks:
    """Make a model do what the checkpoint says; factors: of input channels (in,), by layer, beside those of its divisions."""
    hooks = Hooks()
    prefix, blocks = find_blocks(model)
    for number, block in enumerate(blocks):
        attach_block(hooks, f"{prefix}.{number}", block, runtime, factors)
    model.hooks = hooks
    return hooks


def attach_block(hooks: Hooks, prefix: str, block: nn.Module, runtime: Runtime, factors: dict[str, torch.Tensor]) -> None:
    """The same for one block, which is called `prefix`."""
    if runtime.kv is not None:
        hooks.on_keys_and_values(block, rounding(runtime.kv))
        hooks.to_round[block] = f"the keys and values of {prefix}"
    known: list[Input] = []
    for inner, layer in linears(block).items():
        change = input_of(runtime, f"{prefix}.{inner}", factors.get(f"{prefix}.{inner}"))
        if change is None:
            continue
        change = next((one for one in known if one.same_as(change)), change)  # what is made of one input is made once
        known.append(change)
        hooks.on_layers([layer], change)
        if change.numbers is not None:
            hooks.to_round[layer] = f"the input of {prefix}.{inner}"


def input_of(runtime: Runtime, name: str, factor: torch.Tensor | None) -> Input | None:
    """What is done to a layer's input; None for nothing."""
    divisor = next((one.scales for one in runtime.divisions if one.source is None and name in one.layers), None)
    change = Input(factor, runtime.activations, runtime.spans.get(name), divisor, reassembly_of(runtime, name))
    return change if any(value is not None for value in vars(change).values()) else None
