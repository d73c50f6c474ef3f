"""Keys and values of attention that are rounded, before the cache keeps them and attention reads them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.config.number_formats import KeysValues
from bitsure.models.size import head_widths
from bitsure.quantize.inference.orthogonal import Orthogonal
from bitsure.quantize.walk.targets import find_blocks
from bitsure.quantize.weights.fake_quantize import fake_quantize

KeysAndValues = tuple[torch.Tensor, torch.Tensor]
CACHE_PARAMETERS = ("past_key_values", "layer_past")


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
    size = numbers.group_size
    width = next((width for width in sorted(head_widths(model)) if size is not None and size > 0 and width % size), None)
    if width is not None:
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
