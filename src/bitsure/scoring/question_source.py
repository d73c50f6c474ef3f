"""Which questions are scored: the tasks, how they are put, and what identifies their data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from bitsure.base.files import hash_json
from bitsure.base.store import hash_files
from bitsure.config.schema import TaskSettings
from bitsure.records.joining import IDENTITY

FEW_SHOTS = 1  # one more whenever our code would put other examples before the same questions
PROMPT_SETTINGS = ("num_fewshot", "limit", "seed", "chat_template", "system_instruction", "add_bos")


@dataclass(frozen=True)
class QuestionSource:
    """The tasks of a run, and what identifies their data."""

    task: TaskSettings
    hub_mirror: str | None
    """A directory that holds data sets."""
    own_tasks: str | None
    """Hash of the user's own task files; None without any."""
    fingerprint: str
    """Hash of the user's own task files and of the mirror's listing."""

    @property
    def prompt_settings(self) -> dict[str, object]:
        """How the questions are put; None is the task's, or the tokenizer's, own way."""
        return {name: getattr(self.task, name) for name in PROMPT_SETTINGS}

    @property
    def key(self) -> dict[str, object]:
        """What identifies the questions of a task, and their prompts, in the key of their records."""
        key = {"data": self.fingerprint, **self.prompt_settings}
        if self.task.num_fewshot != 0:
            key["few_shots"] = {"version": FEW_SHOTS, "exclude_question": self.task.exclude_question}
        return key


def hash_of_questions(records: pa.Table) -> str:
    """Return the hash of which questions records hold, with which prompts and targets, in their order."""
    columns = ("doc_id", *IDENTITY)
    return hash_json([records[name].to_pylist() for name in columns])


def locate_questions(task: TaskSettings, hub_mirror: str | None) -> QuestionSource:
    """Identify the tasks' data without loading the harness, so that records in the store are found at once.

    Args:
        task: The tasks.
        hub_mirror: A directory that holds data sets, or None.
    """
    own_files = sorted(file for file in Path(task.include_path).rglob("*") if file.is_file()) if task.include_path else []
    own_tasks = hash_files(own_files)
    fingerprint = hash_json([own_tasks, _listing(hub_mirror) if hub_mirror else []])
    return QuestionSource(task, hub_mirror, own_tasks if task.include_path else None, fingerprint)


def _listing(hub_mirror: str) -> list[tuple[str, int, int]]:
    """Return the name, size and time of each file of a mirror's data sets."""
    files = sorted(file for file in Path(hub_mirror, "datasets").rglob("*") if file.is_file())
    return [(str(file.relative_to(hub_mirror)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
