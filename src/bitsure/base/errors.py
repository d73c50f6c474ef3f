"""The error that is shown to the user without a traceback, and checks that raise it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable

from bitsure.base.plain_text import without_controls


class UserError(Exception):
    """Something that the user can correct: main.py prints the message without a traceback.

    A message says what was given, what is allowed, where, and what to do. Each argument is one error and one line of the text.
    """

    def __str__(self) -> str:
        return without_controls("\n".join(map(str, self.args)))

    def prefixed(self, prefix: str) -> UserError:
        """Return the same error with `prefix` before its message."""
        return UserError(f"{prefix}{self}")

    def followed_by(self, suffix: str) -> UserError:
        """Return the same error with `suffix` after its message."""
        return UserError(f"{self}{suffix}")


class DiskError(UserError, OSError):
    """The disk is full, or a file may not be read or written."""


class NotInstalled(UserError):
    """A library that a setting needs is not installed."""


class NotHere(UserError):
    """A file is not on this machine and would have to be downloaded, which is switched off."""

    wanted: str = ""
    """What would have to be downloaded."""

    @classmethod
    def because(cls, wanted: str, message: str) -> NotHere:
        """Return the error for what is `wanted`, with a message that says why it is not here."""
        error = cls(message)
        error.wanted = wanted
        return error

    def prefixed(self, prefix: str) -> NotHere:
        """Return the same error with `prefix` before its message and before what is wanted."""
        return NotHere.because(f"{prefix}{self.wanted}", f"{prefix}{self}")

    def followed_by(self, suffix: str) -> NotHere:
        """Return the same error with `suffix` after its message; what is wanted stays."""
        return NotHere.because(self.wanted, f"{self}{suffix}")


def in_one_line(error: BaseException, most: int = 300) -> str:
    """Return an error's kind and the first `most` characters of what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most] or 'no message'}"


def did_you_mean(given: str, allowed: Iterable[str], above: str = "") -> str:
    """Return " Did you mean …?" with the allowed names closest to the given one; empty if none is close.

    Args:
        given: What was given.
        allowed: The names.
        above: What stands before each of them in the answer, such as `task.`.
    """
    closest = sorted(difflib.get_close_matches(given, list(allowed), n=4), key=lambda name: _number_distance(given, name))
    if not closest:
        return ""
    *others, last = (f"{above}{name}" for name in closest)
    return f" Did you mean {', '.join(others)} or {last}?" if others else f" Did you mean {last}?"


def _number_distance(given: str, name: str) -> float:
    """Return how far the numbers in two names are apart; infinite where they do not have as many, or none."""
    first, second = (re.findall(r"[0-9]+", text) for text in (given, name))
    if not first or len(first) != len(second):
        return math.inf
    return float(sum(abs(int(a) - int(b)) for a, b in zip(first, second, strict=True)))


def one_of(key: str, given: object, allowed: Collection[object], hint: str = "") -> None:
    """Raise UserError if the setting `key` has a value not among the allowed ones; the hint is appended to the message."""
    if given not in allowed:
        raise UserError(f"{key}={given}: allowed are {', '.join(map(str, allowed))}{hint}.")


def at_least(key: str, given: int, least: int, hint: str = "") -> None:
    """Raise UserError if the setting `key` is less than `least`; the hint is appended to the message."""
    if given < least:
        raise UserError(f"{key}={given}: must be {least} or more{hint}.")
