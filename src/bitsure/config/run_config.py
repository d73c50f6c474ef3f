"""config.yaml of a run directory, read as plain values: such a directory may come from anyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bitsure.base.errors import UserError

DEEPEST = 64  # levels of nesting; libyaml's own reader crashes the process where there are very many
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_run_config(file: Path) -> dict[str, Any]:
    """Return a run's settings, group by group; nothing in them is resolved or imported.

    Raises:
        UserError: If the file cannot be read, or is no mapping of names to plain values.
    """
    try:
        text = file.read_text(encoding="utf-8")
        _check_nesting(text)
        config = yaml.load(text, Loader=LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} is no run's config.yaml: {_reason(error)}.") from error
    if not isinstance(config, dict) or not all(isinstance(name, str) for name in config):
        raise UserError(f"{file} is no run's config.yaml: it holds no groups of settings.")
    return config


def _check_nesting(text: str) -> None:
    """Raise ValueError for what would take endless time or memory: deep nesting, and values that stand for other ones."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            raise ValueError("a run writes no deep nesting and no aliases (*name)")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return " ".join(str(error).split())
