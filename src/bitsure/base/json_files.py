"""JSON files of others, which may be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError


def read_object(file: Path, remedy: str = "Bring the file again.") -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        file: The file.
        remedy: What to do if it is damaged, for the message.

    Raises:
        UserError: If the file cannot be read, was cut short, is no JSON in UTF-8, or holds something else than an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON in UTF-8 ({error}): it was cut short or damaged. {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a JSON {type(content).__name__}, and an object {{…}} is expected. {remedy}")
    return content
