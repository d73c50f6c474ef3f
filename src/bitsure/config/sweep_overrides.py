"""Expand a sweep's overrides, such as `model=opt-125m,opt-1.3b`, into those of its cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser

from bitsure.base.errors import UserError


def expand(overrides: Iterable[str], loader: ConfigLoader | None = None) -> list[list[str]]:
    """Return each cell's overrides, in the order in which Hydra's own sweeper launches the cells.

    Args:
        overrides: The sweep's, such as `["model=a,b", "quant=rtn3"]`; the later of two with the same name counts.
        loader: Knows the options that `glob(…)` stands for; without it there must be no glob.

    Raises:
        UserError: If a value is a range without steps, such as `interval(0, 1)`.
    """
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UserError(f"{override.input_line}: a sweep needs single values. List them, such as {key}=1,2.")
    return [list(cell) for cell in itertools.product(*choices.values())]
