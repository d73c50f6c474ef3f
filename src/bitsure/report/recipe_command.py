"""The command that scores the recipe of a run's attribution, ready to be pasted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

MAIN = "main.py"
SWEPT = ("-m", "--multirun", "hydra.mode=MULTIRUN")
OWN = ("quant=", "attribution=", "attribution.", "hydra.run.")  # what the other run has otherwise, or not at all


def recipe_command(command: Sequence[str], preset: str | None, recipe: Path) -> str | None:
    """Return a run's command with the recipe in the place of its quantizer.

    Args:
        command: The run's command line.
        preset: Its option of conf/quant; None where it is not known.
        recipe: The file that the run wrote.

    Returns:
        The command; None where the run's is no command of one run, such as that of a sweep.
    """
    if preset is None or command[0] != MAIN or not set(command).isdisjoint(SWEPT):
        return None
    quantizer = ["quant=mixed", f"quant@quant.like={preset}", f"quant.recipe={_value(recipe)}"]
    return shlex.join(["python", MAIN, *_others(command[1:]), *quantizer, *_rounding(command[1:])])


def _others(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what stays: models, tasks and the like."""
    for argument in arguments:
        if not argument.lstrip("+~").startswith((*OWN, "quant.")):
            yield argument


def _rounding(arguments: Sequence[str]) -> Iterator[str]:
    """Yield settings of the quantizer as those of `quant.like`."""
    for argument in arguments:
        if match := re.fullmatch(r"([+~]*)quant\.(.*)", argument, re.DOTALL):
            yield f"{match[1]}quant.like.{match[2]}"


def _value(file: Path) -> str:
    """Return a path as the value of an override; Hydra reads some characters as its own unless they are quoted."""
    place = str(file.absolute())
    if re.fullmatch(r"[\w/.+-]+", place):
        return place
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + (r"\'" if match[2] else ""), place) + "'"
