"""Hashes of tasks' prompts in the store: models are compared on the same prompts, or their records are made again."""

from __future__ import annotations

import json
import logging
from typing import Any

from bitsure.base.errors import UserError
from bitsure.base.files import write_text
from bitsure.base.store import Store

log = logging.getLogger(__name__)

PROMPTS_FILE = "questions.json"  # beside a task's records, and under a key of its own: the hash of its questions and prompts


class KeptPrompts:
    """The hash of each task's prompts, the same for all models that read them.

    Args:
        store: Where the hashes are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed: set[str] = set()  # tasks whose prompts were not those of the store

    def kept(self, key: dict[str, Any], to_read: bool) -> str | None:
        """Return the hash that is kept of a task's prompts; None if there is none.

        Args:
            key: What makes the prompts.
            to_read: As in `Store.find`.
        """
        entry = self._store.find("prompts", key, to_read)
        return None if entry is None else str(json.loads((entry / PROMPTS_FILE).read_text(encoding="utf-8")))

    def keep(self, name: str, key: dict[str, Any], prompts: str) -> None:
        """Keep the hash of a task's prompts for all later models, or compare it with the one that is kept.

        Args:
            name: The task.
            key: What makes the prompts.
            prompts: The hash of the task's questions and prompts.

        Raises:
            UserError: If the prompts differ each time that they are made.
        """
        with self._store.lock("prompts", key):
            kept = self.kept(key, to_read=True)
            if kept == prompts:
                return
            if kept is not None:
                if name in self._changed:
                    raise UserError(
                        f"task.names: {name} has other prompts each time that they are made, so that two models cannot be "
                        "compared. Its Python code draws at random without a seed: seed it, or leave the task out."
                    )
                log.warning("task %s: its prompts are not those of earlier records, which are made again", name)
                self._changed.add(name)
                self._store.remove("prompts", key)
            with self._store.create("prompts", key) as entry:
                write_text(entry / PROMPTS_FILE, json.dumps(prompts))
