"""The tasks' training questions with their answers, as text for a quantizer's calibration."""

from __future__ import annotations

import logging

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.tasks.harness_tasks import load_tasks
from bitsure.tasks.kinds import kind_of
from bitsure.tasks.protocols import Document, HarnessTask

log = logging.getLogger(__name__)


def training_texts(task: TaskSettings, hub_mirror: str | None) -> list[str]:
    """Return every question of the tasks' training splits with its right answer, as scoring writes it, without examples.

    A text that is word for word a scored question with its answer is left out.

    Args:
        task: The tasks.
        hub_mirror: A directory that holds data sets, or None.

    Raises:
        UserError: If a task has no training split apart from the scored one, or no text is left.
    """
    loaded = load_tasks(task, task.names, hub_mirror)
    tasks = {name: harness_task for entry in loaded.values() for name, harness_task in entry.tasks.items()}
    if without := [name for name, harness_task in tasks.items() if not _has_own_training_split(harness_task)]:
        raise UserError(
            f"calib=task: {', '.join(without)} {'has' if len(without) == 1 else 'have'} no training split apart from the "
            "scored one. Leave them out of task.names, or take another text, such as calib=c4 or calib=text calib.path=FILE."
        )
    scored = {_answered(name, member, doc) for name, member in tasks.items() for doc in member.eval_docs}
    texts = [_answered(name, member, doc) for name, member in tasks.items() for doc in member.training_docs()]
    kept = [text for text in texts if text not in scored]
    if not kept:
        raise UserError(
            f"calib=task: all {len(texts)} training questions of {', '.join(tasks)} are scored questions too. "
            "Take another text, such as calib=c4 or calib=text calib.path=FILE."
        )
    log.info("calibration text: %d training questions; %d others are scored and left out", len(kept), len(texts) - len(kept))
    return kept


def _has_own_training_split(task: HarnessTask) -> bool:
    scored = task.config.test_split or task.config.validation_split
    return task.config.training_split not in (None, scored) and task.config.training_split in task.dataset


def _answered(name: str, task: HarnessTask, doc: Document) -> str:
    return kind_of(task).answered_text(name, task, doc)
