"""What people write on the command line, put as Hydra reads it."""

from __future__ import annotations

import re

from bitsure.config.paths import CONF

SWITCHED = ("attribution", "compress")  # groups of settings that people switch on or off as one


def as_hydra_reads(argument: str) -> str:
    """Return an argument of the command with what it means to Hydra.

    `attribution=true` is `attribution.measure=true`. The name of an option stays one where Hydra would read a number or a truth
    value, for which it has no sentence: `quant=4` is `quant='4'`, an option that does not exist.

    Args:
        argument: An override, such as `quant=4`; anything else is returned as it is.
    """
    name, _, value = argument.partition("=")
    if name in SWITCHED and re.fullmatch(r"(true|false)(,(true|false))*", value, re.IGNORECASE):
        return f"{name}.measure={value}"
    if name.isidentifier() and (CONF / name).is_dir() and re.fullmatch(r"true|false|null|[\d.]+", value, re.IGNORECASE):
        return f"{name}='{value}'"
    return argument
