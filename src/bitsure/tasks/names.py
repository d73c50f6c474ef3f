"""Names of lm-evaluation-harness's tasks, groups and tags: what they stand for, and which of them cannot be scored."""

from __future__ import annotations

import functools

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

from bitsure.base.errors import UserError, did_you_mean
from bitsure.config.schema import TaskSettings

CHOICES, CONTINUATION, TEXT = SCORED = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
WHY_NOT = "the answer is text that the model writes: no probability of it is asked for, so that there is no confidence to take"


def manager_of(task: TaskSettings, name: str) -> TaskManager:
    """What knows a name: one's own folder alone, which is quick, or all that the harness has."""
    manager = manager_with(task.include_path, include_defaults=False)
    if task.include_path is None or name not in manager.all_tasks:
        manager = manager_with(task.include_path, include_defaults=True)
    if name not in manager.all_tasks:
        where = "lm-evaluation-harness" + (f" or in task.include_path={task.include_path}" if task.include_path else "")
        unknown = [one for one in [name, *task.names] if one not in manager.all_tasks]
        said = " No task ".join(_unknown(one, manager) for one in dict.fromkeys(unknown))
        raise UserError(f"task.names: in {where} there is no task {said} `lm-eval ls tasks` lists them all.")
    return manager


def _unknown(name: str, manager: TaskManager) -> str:
    return f"{name!r}.{did_you_mean(name, manager.all_tasks)}"


@functools.cache
def manager_with(include_path: str | None, include_defaults: bool) -> TaskManager:
    return TaskManager(include_path=include_path, include_defaults=include_defaults)


def members(manager: TaskManager, name: str) -> dict[str, str | None]:
    """{task: its kind} of a name: one task, or all of a group or tag. A Python task's kind is None until it is loaded."""
    entry = manager.task_index.get(name)
    if entry is None:  # a task that a group defines in itself
        return {}
    if entry.kind is Kind.TAG:
        return {task: kind for one in sorted(entry.tags) for task, kind in members(manager, one).items()}
    if entry.kind is Kind.GROUP:
        return _members_of(manager, entry.cfg["task"])
    return {name: _kind(entry)}


def _members_of(manager: TaskManager, listed: str | list[str | dict]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for one in [listed] if isinstance(listed, str) else listed:
        name = one if isinstance(one, str) else one.get("task", one.get("group"))
        found |= members(manager, name) if isinstance(name, str) and name in manager.task_index else {}
        if isinstance(one, dict) and isinstance(one.get("task"), list):
            found |= _members_of(manager, one["task"])
    return found


def _kind(entry: Entry) -> str | None:
    return None if entry.kind is Kind.PY_TASK else (entry.cfg or {}).get("output_type", "generate_until")


def check_fit(manager: TaskManager, name: str) -> None:
    """Raise UserError if a task, or any of a group, is of a kind that is not scored; nothing is loaded for it."""
    kinds = members(manager, name)
    unfit = [task for task, kind in kinds.items() if kind not in (*SCORED, None)]
    if not unfit:
        return
    if list(kinds) == [name]:
        raise UserError(f"task.names: {name} is of the kind {kinds[name]}: {WHY_NOT}. docs/tasks.md lists tasks that fit.")
    fit = [task for task in kinds if task not in unfit]
    raise UserError(
        f"task.names: {_some(unfit)} of the group {name} cannot be scored: {WHY_NOT}."
        + (f" The others can, by name: 'task.names=[{','.join(fit)}]'." if fit else " docs/tasks.md lists tasks that fit.")
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
