"""Code of a user's own, such as a metric or a quantizer, that lies in their `--config-dir` or beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError


def make_importable(config_sources: Iterable[Any]) -> None:
    """Let Python import modules from the folder of every `--config-dir`, and from the folder that it lies in.

    They come last on Python's path, so that they shadow no other module.

    Args:
        config_sources: Hydra's `hydra.runtime.config_sources`.
    """
    for source in config_sources:
        if source.provider == "command-line":
            add_to_path(Path(source.path))


def add_to_path(config_dir: Path) -> None:
    """Let Python import modules from a folder of configs, and from the folder that it lies in."""
    if not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such directory.")
    for folder in (config_dir.resolve(), config_dir.resolve().parent):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
