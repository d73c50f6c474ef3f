"""The one exception for what a user can mend; main.py prints its message without a traceback. And two checks that raise it."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Says what was given, what is allowed, where, and what to do."""


class NotHere(UserError):
    """What would have to be downloaded, where nothing is."""


def one_of(key: str, given: Any, allowed: Any) -> None:
    if given not in allowed:
        raise UserError(f"{key}={given}: allowed are {', '.join(map(str, allowed))}.")


def at_least(key: str, given: int, least: int, hint: str = "") -> None:
    if given < least:
        raise UserError(f"{key}={given}: must be {least} or more{hint}.")
