"""What every result file has in common: typed fields with a sentence each, written and read whole."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bitsure.base.errors import UserError
from bitsure.base.files import write_text

T = TypeVar("T")
Integer: TypeAlias = Annotated[int, Field(ge=-(2**53), le=2**53)]
"""A whole number that every reader of JSON has exactly, and that a table's column has room for."""


class Result(BaseModel):
    """A part of a result file.

    A field that is not set is absent from the file; a field that is None is null there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


_PLAIN: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))  # else NaN would become null


def to_json(value: Any) -> str:
    """Return a result as the text of its file.

    Args:
        value: A `Result`, or dicts and lists of them.

    Raises:
        ValueError: If a number is not finite: JSON has none, so such a value has to be None.
    """
    return json.dumps(to_plain(value), indent=1, ensure_ascii=False, allow_nan=False)


def to_plain(value: Any) -> Any:
    """Return a result as plain dicts, lists, strings and numbers; fields that are not set are left out."""
    return _PLAIN.dump_python(value, exclude_unset=True)


def write(path: Path, value: Any) -> None:
    """Write a result file, whole or not at all."""
    write_text(path, to_json(value))


def read(path: Path, kind: type[T]) -> T:
    """Read a result file.

    Args:
        path: The file.
        kind: The type that it holds, such as `Verdict` or `MetricsByTask`.

    Raises:
        UserError: If the file is missing, is not JSON, or does not fit the type; the field is named.
    """
    adapter: TypeAdapter[T] = _adapter(cast(Any, kind))
    try:
        return adapter.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise UserError(f"{path} is no result file of this version: {_first_problem(error)}.") from error


def check(value: object, kind: type[T], place: object) -> T:
    """Return plain data from outside as a type; raise UserError, with the place and the field, if it does not fit."""
    adapter: TypeAdapter[T] = _adapter(cast(Any, kind))
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise UserError(f"{place}: {_first_problem(error)}.") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def read_if_there(path: Path, kind: type[T]) -> T | None:
    """Read a result file that a run may not have; None where there is none. Raises UserError as `read`."""
    return read(path, kind) if path.is_file() else None
