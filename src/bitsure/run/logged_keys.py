"""The keys that a run logged to W&B, kept in its directory: what panels can show of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bitsure.base.files import write_text

KEYS_FILE = "wandb/keys.json"  # in the run's directory, beside W&B's own files


def write_keys(directory: Path, keys: Iterable[str]) -> None:
    """Keep the keys that a run logged."""
    file = directory / KEYS_FILE
    file.parent.mkdir(exist_ok=True)
    write_text(file, json.dumps(sorted(keys)))


def read_keys(directory: Path) -> set[str]:
    """Return the keys that a run logged; none where it logged nothing, or its file cannot be read."""
    with suppress(OSError, ValueError):
        keys = json.loads((directory / KEYS_FILE).read_text(encoding="utf-8"))
        if isinstance(keys, list):
            return {str(key) for key in keys}
    return set()
