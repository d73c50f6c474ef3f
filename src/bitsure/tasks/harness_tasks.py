"""lm-evaluation-harness's tasks, loaded with their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from lm_eval.tasks import TaskManager

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.hub.data_sets import data_sets_from
from bitsure.hub.repositories import Origin
from bitsure.tasks.data_files import READING_ERRORS, changed_data, load_error, missing_column
from bitsure.tasks.few_shots import prepare_few_shots, repeatable_draws
from bitsure.tasks.kinds import KINDS, kind_of
from bitsure.tasks.protocols import HarnessTask
from bitsure.tasks.task_names import WHY_NOT_SCORED, check_scored, find_manager, members

SIZE_SAMPLE = 100  # documents of a task that are read to estimate the length of all


@dataclass(frozen=True)
class LoadedTasks:
    """What one name in task.names stands for: a task, or all tasks of a group or tag."""

    tasks: dict[str, HarnessTask]
    """Task → the harness's object, with its data."""
    data: dict[str, Origin]
    """Repository → where its files came from."""

    def count_requests(self, limit: int | None) -> int:
        """Return how many choices, continuations and texts are scored, of the first `limit` documents of each task."""
        return sum(kind_of(task).n_requests(task, doc) for task in self.tasks.values() for doc in list(task.eval_docs)[:limit])

    def estimate_size(self, limit: int | None) -> tuple[int, int]:
        """Return the number of questions, and about how many characters they and their choices have."""
        questions = characters = 0
        for task in self.tasks.values():
            docs = list(task.eval_docs)[:limit]
            some = docs[:: max(1, len(docs) // SIZE_SAMPLE)]
            questions += len(docs)
            sampled = sum(len(text) for doc in some for text in kind_of(task).texts(task, doc))
            characters += sampled * len(docs) // max(1, len(some))
        return questions, characters


def load_tasks(task: TaskSettings, names: Sequence[str], hub_mirror: str | None, fetch: bool = False) -> dict[str, LoadedTasks]:
    """Load tasks with their data.

    Args:
        task: The settings: few-shot count, how examples are drawn, the folder of the user's own tasks.
        names: Names of tasks, groups or tags. A group or tag stands for its tasks; it has no number of its own.
        hub_mirror: A directory that holds data sets, or None.
        fetch: Put data that the mirror lacks into it first.

    Returns:
        Name → its tasks.

    Raises:
        UserError: If the harness does not know a name, or a task is of a kind that is not scored (both before any data is
            read), or data is not available or cannot be read, or there are too few examples.
    """
    managers = {name: find_manager(task, name) for name in names}
    for name in names:
        check_scored(managers[name], name)
    loaded = {}
    with data_sets_from(hub_mirror, task.include_path, fetch) as origins:
        for name in names:
            origins.clear()
            with repeatable_draws():
                loaded[name] = LoadedTasks(_load(managers[name], name), dict(origins))
            for member, harness_task in loaded[name].tasks.items():
                if harness_task.OUTPUT_TYPE not in KINDS:  # the kind of a Python task is known only now
                    raise UserError(f"task.names: {member} is of the kind {harness_task.OUTPUT_TYPE}: {WHY_NOT_SCORED}.")
                prepare_few_shots(member, harness_task, task)
                _check_first_document(member, harness_task)
    return loaded


def _load(manager: TaskManager, name: str) -> dict[str, HarnessTask]:
    """Load the tasks of a name; if one of several fails, the error names it."""
    try:
        return cast("dict[str, HarnessTask]", manager.load([name])["tasks"])
    except (UserError, *READING_ERRORS) as error:
        names = list(members(manager, name))
        for member in names if names != [name] else ():
            try:
                manager.load([member])
            except (UserError, *READING_ERRORS) as member_error:
                if explanation := load_error(manager, member, f", of the group {name}", member_error):
                    raise explanation from member_error
                raise
        if explanation := load_error(manager, name, "", error):
            raise explanation from error
        raise


def _check_first_document(name: str, task: HarnessTask) -> None:
    """Raise UserError if what is scored of the first document cannot be read; reading all takes as long as loading them."""
    for doc in islice(task.eval_docs, 1):
        try:
            kind_of(task).check_readable(name, task, doc)
            if n := task.get_config("num_fewshot"):
                task.fewshot_context(doc, num_fewshot=n, gen_prefix=task.doc_to_prefix(doc))
        except READING_ERRORS as error:
            if column := missing_column(error, task.dump_config(), list(doc)):
                raise changed_data(name, task.DATASET_PATH, task.DATASET_NAME, column, list(doc)) from error
            raise
