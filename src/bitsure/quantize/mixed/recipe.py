"""A recipe: the bits of each layer's weights, as a file that can be read by people and used again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bitsure.base.errors import UserError
from bitsure.base.files import write_text
from bitsure.config.quantizers import Rounded

RECIPE = "recipe.yaml"  # in the directory of a checkpoint, and of a run
HEAD = (
    "# Bits of each layer's weights. quant=mixed quant.recipe=FILE uses them; quant@quant.like=… says how they are rounded.\n"
)
GRID = {"group_size": int, "symmetric": bool, "remainder": str}  # settings of a quantizer → their types
NAMED = 5  # layers in an error message


@dataclass(frozen=True)
class Recipe:
    """The bits of each layer's weights."""

    layers: Mapping[str, int]
    """Layer → bits."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """How they were chosen, for readers."""
    grid: Mapping[str, Any] = field(default_factory=dict)
    """Those of GRID that they were chosen for: with others a layer takes other bits, and loses something else."""

    @classmethod
    def read(cls, file: Path) -> Recipe:
        """Read a recipe's file.

        Raises:
            UserError: If there is no such file, or it is none of a recipe.
        """
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"quant.recipe={file}: cannot be read ({reason}). Give a file such as recipe.yaml in the directory of a run "
                "with quant=mixed or attribution=true."
            ) from error
        layers = content.get("layers") if isinstance(content, dict) else None
        if not isinstance(layers, dict) or not layers:
            raise UserError(f"quant.recipe={file}: needs `layers:` with a line `NAME: BITS` for each layer.")
        if wrong := [name for name, bits in layers.items() if type(bits) is not int or not isinstance(name, str)]:
            raise UserError(f"quant.recipe={file}: {wrong[0]}: {layers[wrong[0]]}: a layer's name and a whole number of bits.")
        chosen, grid = content.get("chosen"), content.get("grid", {})
        if not isinstance(grid, dict) or any(type(value) is not GRID.get(name) for name, value in grid.items()):
            raise UserError(
                f"quant.recipe={file}: grid: {grid}: needs lines such as `group_size: 128`, `symmetric: true` and "
                "`remainder: shorten`. Correct it, or remove `grid` if the bits are to hold for any."
            )
        return cls(layers, chosen if isinstance(chosen, dict) else {}, grid)

    def write(self, file: Path) -> None:
        """Write the recipe's file."""
        content = {"chosen": dict(self.chosen), "grid": dict(self.grid), "layers": dict(self.layers)}
        write_text(file, HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def check_grid(self, like: Rounded, file: str) -> None:
        """Raise UserError if weights are to be rounded to another grid than the bits were chosen for.

        Args:
            like: How weights are rounded.
            file: The recipe's file, for messages.
        """
        own = grid_of(like)
        if different := [name for name, value in self.grid.items() if own[name] != value]:
            chosen, given = (", ".join(f"{name}={values[name]}" for name in different) for values in (self.grid, own))
            settings = " ".join(f"quant.like.{name}={self.grid[name]}" for name in different)
            raise UserError(
                f"quant.recipe={file} was chosen for {chosen}, and quant.like has {given}, with which these bits take another "
                f"size and lose something else. Give {settings}, or remove `grid` from the file."
            )

    def check_layers(self, names: set[str], model: str, file: str) -> None:
        """Raise UserError unless the recipe's layers are exactly those of a model.

        Args:
            names: The names of the model's layers.
            model: The model's name, for messages.
            file: The recipe's file, for messages.
        """
        faults = {
            f"names layers that {model} does not have": sorted(self.layers.keys() - names),
            f"lacks layers of {model}": sorted(names - self.layers.keys()),
        }
        lines = [f"{fault}: {_listed(layers)}" for fault, layers in faults.items() if layers]
        if lines:
            raise UserError(f"quant.recipe={file} {', and '.join(lines)}. Give a recipe that was made for this model.")


def grid_of(quant: Rounded) -> dict[str, Any]:
    """Return the settings of GRID of a quantizer."""
    return {name: getattr(quant, name) for name in GRID}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
