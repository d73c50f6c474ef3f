"""Which questions are scored: the tasks, how they are put, and what identifies their data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from bitsure.base.files import hash_json
from bitsure.base.store import hash_files
from bitsure.config.derived_tasks import derivation_of, original_task
from bitsure.config.schema import TaskSettings
from bitsure.records.joining import IDENTITY
from bitsure.scoring.generation.truth_question import TRUTH_QUESTION
from bitsure.tasks import open_questions, retrieval_tasks

FEW_SHOTS = 1  # one more whenever our code would put other examples before the same questions
DERIVED = 2  # one more whenever our code would make other questions of a derived name such as arc_easy@typos
PROMPT_SETTINGS = ("num_fewshot", "limit", "seed", "chat_template", "system_instruction", "add_bos", "score_bos")


@dataclass(frozen=True)
class QuestionSource:
    """The tasks of a run, and what identifies their data."""

    task: TaskSettings
    hub_mirror: str | None
    """A directory that holds data sets."""
    own_tasks: str | None
    """Hash of the files in the user's own folder of tasks; None without one."""

    @property
    def own_files(self) -> list[Path]:
        """The files in the user's own folder of tasks."""
        return _files_in(self.task.include_path)

    @property
    def prompt_settings(self) -> dict[str, object]:
        """How the questions are put; None is the task's, or the tokenizer's, own way."""
        return {name: getattr(self.task, name) for name in PROMPT_SETTINGS}

    def key(self, name: str, files: object, has_written_answers: bool) -> dict[str, object]:
        """Return what identifies the questions of a task, and their prompts, in the key of their records.

        Args:
            name: The task's name.
            files: What the files hold that the task read, as JSON; None if that is not known yet.
            has_written_answers: Whether the model writes its answers, of which more can be asked.
        """
        key = {"data": hash_json([self.own_tasks or hash_files([]), files]), **self.prompt_settings}
        if self.task.num_fewshot != 0:
            key["few_shots"] = {"version": FEW_SHOTS, "exclude_question": self.task.exclude_question}
        if derivation_of(name):
            key["derived"] = DERIVED
        if self.task.samples and has_written_answers:
            key["samples"] = self.task.samples
        if self.task.p_true and has_written_answers:
            key["p_true"] = TRUTH_QUESTION
        if name in open_questions.OPEN:
            key["open"] = open_questions.open_key(self.task.open)
        if original_task(name) in retrieval_tasks.KINDS:
            key["retrieval"] = {"version": retrieval_tasks.VERSION, **asdict(self.task.retrieval)}
        return key


def hash_of_questions(records: pa.Table) -> str:
    """Return the hash of which questions records hold, with which prompts and targets, in their order."""
    columns = ("doc_id", *IDENTITY)
    return hash_json([records[name].to_pylist() for name in columns])


def locate_questions(task: TaskSettings, hub_mirror: str | None) -> QuestionSource:
    """Identify the tasks without loading the harness, so that records in the store are found at once.

    Args:
        task: The tasks.
        hub_mirror: A directory that holds data sets, or None.
    """
    own_tasks = hash_files(_files_in(task.include_path)) if task.include_path else None
    return QuestionSource(task, hub_mirror, own_tasks)


def _files_in(folder: str | None) -> list[Path]:
    return sorted(file for file in Path(folder).rglob("*") if file.is_file()) if folder else []
