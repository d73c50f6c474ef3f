"""The one exception for what a user can mend; main.py prints its message without a traceback. And what helps to word it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Says what was given, what is allowed, where, and what to do; each argument is an error, and a line of the text."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class NotHere(UserError):
    """What would have to be downloaded, where nothing is."""


def meant(given: str, allowed: Iterable[str]) -> str:
    """A question after what is nearest, with a space behind it; empty where nothing is near."""
    nearest = difflib.get_close_matches(given, list(allowed))
    return f"Was {' or '.join(nearest)} meant? " if nearest else ""


def one_of(key: str, given: Any, allowed: Any) -> None:
    if given not in allowed:
        raise UserError(f"{key}={given}: allowed are {', '.join(map(str, allowed))}.")


def at_least(key: str, given: int, least: int, hint: str = "") -> None:
    if given < least:
        raise UserError(f"{key}={given}: must be {least} or more{hint}.")
