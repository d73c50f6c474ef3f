"""Results of functions that many cells of a sweep call with equal arguments."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any, ParamSpec, TypeVar

from bitsure.base.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")


class Memo:
    """Remembers what functions returned, or the UserError they raised, for as long as the memo lives.

    A result is found again by the function and by the equality of its arguments, never by how they print.
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, Any] = {}
        self._errors: dict[Hashable, UserError] = {}

    def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return `function(*arguments, **named)`; the function is called on the first such call only.

        Raises:
            UserError: What the function raised at the first call.
            TypeError: If an argument has no value to compare by, such as an array.
        """
        key = (function, *map(_key, arguments), _key(named))
        if error := self._errors.get(key):
            raise error
        if key not in self._results:
            try:
                self._results[key] = function(*arguments, **named)
            except UserError as error:
                self._errors[key] = error
                raise
        return self._results[key]  # type: ignore[no-any-return]


def _key(value: Any) -> Hashable:
    """Return a hashable value that equals another's exactly if the arguments are equal."""
    if isinstance(value, Hashable):
        try:
            hash(value)
        except TypeError:  # a tuple or a frozen dataclass that holds a list or a dict
            pass
        else:
            return value
    if isinstance(value, dict):
        return frozenset((key, _key(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return (type(value), *map(_key, value))
    if is_dataclass(value):
        return (type(value), *(_key(getattr(value, field.name)) for field in fields(value)))
    raise TypeError(f"{type(value).__name__} cannot be compared by value: a memo cannot tell two of them apart.")
