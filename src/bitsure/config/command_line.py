"""What people write on the command line, put as Hydra reads it."""

from __future__ import annotations

import re

from bitsure.config.paths import CONF

SWITCHED = ("attribution", "compress")  # groups of settings that people switch on or off as one


def as_hydra_reads(argument: str) -> str:
    """Return an argument of the command with what it means to Hydra.

    `attribution=true` is `attribution.measure=true`. The name of an option stays one where Hydra would read a number, a truth
    value or null, for which it has no sentence: `quant=4` is `quant='4'`, an option that does not exist.

    Args:
        argument: An override, such as `quant=4`; anything else is returned as it is.
    """
    key, _, value = argument.partition("=")
    group = key.lstrip("+")
    if group in SWITCHED and re.fullmatch(r"(true|false)(,(true|false))*", value, re.IGNORECASE):
        return f"{key}.measure={value}"
    if group.isidentifier() and (CONF / group).is_dir() and _is_no_text(argument):
        return f"{key}='{value}'"
    return argument


def _is_no_text(override: str) -> bool:
    """Return whether Hydra reads a number, a truth value or null in an override of one value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        [parsed] = OverridesParser.create().parse_overrides([override])
    except OverrideParseException:
        return False  # Hydra's own sentence says what is wrong
    return not parsed.is_sweep_override() and (parsed.value() is None or isinstance(parsed.value(), bool | int | float))
