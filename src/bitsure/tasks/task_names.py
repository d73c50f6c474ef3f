"""Names of lm-evaluation-harness's tasks, groups and tags: which tasks they stand for, and which of these cannot be scored."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

from bitsure.base.errors import UserError
from bitsure.config.derived_tasks import original_task
from bitsure.config.schema import TaskSettings
from bitsure.tasks.harness_names import folder_of_task, no_such_task
from bitsure.tasks.open_questions import OPEN
from bitsure.tasks.retrieval_tasks import KINDS

WHY_NOT_SCORED = {  # what a task's YAML has → why it is refused
    "unsafe_code": "it runs the code that a model writes, which could do anything on this machine",
    "doc_to_image": "its questions have images, which language models do not read",
    "doc_to_audio": "its questions have sound, which language models do not read",
}


def find_manager(task: TaskSettings, name: str) -> TaskManager:
    """Return the task manager that knows a name.

    Returns:
        The one of the user's own folder alone, or of the harness's folder with that task, which are fast to make; otherwise the
        one of all tasks of the harness. For tasks that are made on the spot, one without tasks.

    Raises:
        UserError: If neither knows the name.
    """
    if name in KINDS or name in OPEN:
        return task_manager(None, include_defaults=False)
    manager = task_manager(task.include_path, include_defaults=False)
    if task.include_path is None or name not in manager.all_tasks:
        folder = folder_of_task(name)
        manager = _folder_manager(folder) if folder else task_manager(task.include_path, include_defaults=True)
    if name not in manager.all_tasks:
        unknown = [other for other in dict.fromkeys([name, *map(original_task, task.names)]) if other not in manager.all_tasks]
        own = task_manager(task.include_path, include_defaults=False).all_tasks if task.include_path else []
        raise no_such_task(task, unknown, manager.all_tasks, sorted(own))
    return manager


@functools.cache
def task_manager(include_path: str | None, *, include_defaults: bool) -> TaskManager:
    """Return the harness's task manager of a folder, with or without the harness's own tasks."""
    return TaskManager(include_path=include_path, include_defaults=include_defaults)


@functools.cache
def _folder_manager(folder: Path) -> TaskManager:
    """Return the task manager of one of the harness's own folders: it reads the files of that folder alone."""
    manager = TaskManager(include_path=folder, include_defaults=False)
    manager.include_path = None  # it is no folder of the user's
    return manager


def members(manager: TaskManager, name: str) -> dict[str, str | None]:
    """Return the tasks that a name stands for: itself, or all of a group or tag.

    Returns:
        Task → the harness's output type; None for a task that is Python code, whose type is known only when it is loaded.
    """
    entry = manager.task_index.get(name)
    if entry is None:  # a task that a group defines in itself
        return {}
    if entry.kind is Kind.TAG:
        return {task: kind for member in sorted(entry.tags) for task, kind in members(manager, member).items()}
    if entry.kind is Kind.GROUP:
        return _listed_members(manager, entry.cfg["task"])
    return {name: _output_type(entry)}


def _listed_members(manager: TaskManager, listed: str | list[str | Mapping[str, Any]]) -> dict[str, str | None]:
    """Return the tasks that a group's YAML lists: by name, or as entries that may be groups themselves."""
    tasks: dict[str, str | None] = {}
    for item in [listed] if isinstance(listed, str) else listed:
        name = item if isinstance(item, str) else item.get("task", item.get("group"))
        if isinstance(name, str) and name in manager.task_index:
            tasks |= members(manager, name)
        if not isinstance(item, str) and isinstance(item.get("task"), list):
            tasks |= _listed_members(manager, item["task"])
    return tasks


def _output_type(entry: Entry) -> str | None:
    return None if entry.kind is Kind.PY_TASK else (entry.cfg or {}).get("output_type", "generate_until")


def check_scored(manager: TaskManager, name: str) -> None:
    """Raise UserError if a task, or any of a group, is of a kind that is not scored; no data is read."""
    tasks = list(members(manager, name))
    entries = {task: manager.task_index[task].cfg or {} for task in tasks if task in manager.task_index}
    for key, why in WHY_NOT_SCORED.items():
        refused = [task for task, settings in entries.items() if settings.get(key)]
        if not refused:
            continue
        if tasks == [name]:
            raise UserError(f"task.names: {name} cannot be scored: {why}. docs/tasks.md lists the tasks that are scored.")
        others = ",".join(task for task in tasks if task not in refused)
        raise UserError(
            f"task.names: {_first_few(refused)} of the group {name} cannot be scored: {why}."
            + (
                f" The others can, by name: 'task.names=[{others}]'."
                if others
                else " docs/tasks.md lists the tasks that are scored."
            )
        )


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
