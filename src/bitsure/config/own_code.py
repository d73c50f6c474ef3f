"""Importing users' own code, such as a metric or a quantizer, from their `--config-dir` or its parent folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError, did_you_mean


def make_importable(config_sources: Iterable[Any]) -> None:
    """Let Python import modules from the folder of every `--config-dir` and from its parent.

    They come last on Python's path, so that they shadow no other module.

    Args:
        config_sources: Hydra's `hydra.runtime.config_sources`.
    """
    for source in config_sources:
        if source.provider == "command-line":
            add_to_path(Path(source.path))


def no_such_config_dir(config_dir: Path) -> str:
    """Return the error message for a `--config-dir` that does not exist, with the nearest directory beside it."""
    above = config_dir.absolute().parent
    neighbours = [path.name for path in above.iterdir() if path.is_dir()] if above.is_dir() else []
    return f"--config-dir {config_dir}: no such directory.{did_you_mean(config_dir.name, neighbours)}"


def add_to_path(config_dir: Path) -> None:
    """Let Python import modules from a folder of configs and from its parent."""
    if not config_dir.is_dir():
        raise UserError(no_such_config_dir(config_dir))
    for folder in (config_dir.resolve(), config_dir.resolve().parent):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
