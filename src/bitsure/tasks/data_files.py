"""Errors that say what is wrong with the data of a task of the harness."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.tasks import TaskManager

from bitsure.base.errors import UserError

log = logging.getLogger(__name__)

UNDEFINED_NAME = re.compile(r"'([^']+)' is undefined|has no attribute '([^']+)'")


def load_error(manager: TaskManager, name: str, group: str, error: Exception) -> UserError:
    """Return the error for a task that cannot be loaded, which names the missing column where that is the cause.

    Args:
        manager: The task manager that knows the task.
        name: The task.
        group: ", of the group NAME" where the task was loaded as a member of one, otherwise "".
        error: What loading raised.
    """
    log.info("task %s cannot be loaded", name, exc_info=error)
    if isinstance(error, UserError):
        return type(error)(f"task.names: {name}{group}: {error}")  # callers tell errors apart by type: NotHere stays NotHere
    entry = manager.task_index.get(name)
    config = (entry.cfg if entry else None) or {}
    columns = _columns(config)
    if missing := missing_column(error, config, columns):
        return changed_data(f"{name}{group}", config.get("dataset_path"), config.get("dataset_name"), missing, columns)
    message = str(error).strip().split("\n")[0][:300]
    return UserError(f"task.names: {name}{group} cannot be loaded: {type(error).__name__}: {message}")


def missing_column(error: Exception, config: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """Return the column that a task reads and its documents lack; None if the error has another cause.

    Args:
        error: What reading a document raised; it may name the column.
        config: The task's settings, whose templates name the columns otherwise.
        columns: The columns of the documents; empty if unknown.
    """
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if match := UNDEFINED_NAME.search(str(error)):
        return match[1] or match[2]
    if not columns or "process_docs" in config:  # which may add columns
        return None
    return next((name for name in _read_columns(config) if name not in columns), None)


def _read_columns(config: Mapping[str, Any]) -> list[str]:
    """Return the columns that a task's YAML reads: by a bare name, or in a template."""
    from jinja2 import Environment, meta

    fields = [config[key] for key in ("doc_to_text", "doc_to_choice", "doc_to_target") if isinstance(config.get(key), str)]
    templates = (sorted(meta.find_undeclared_variables(Environment().parse(field))) for field in fields)
    return [name for field, used in zip(fields, templates, strict=True) for name in ([field] if field.isidentifier() else used)]


def changed_data(task: str, data: str | None, subset: str | None, column: str, columns: Sequence[str]) -> UserError:
    """Return the error for a task whose data set lacks a column."""
    return UserError(
        f"task.names: {task} cannot read its data set {data}{f' ({subset})' if subset else ''}: there is no {column!r}"
        + (f" among its splits and columns {', '.join(columns)}" if columns else "")
        + ". This is not the data set that the harness's task was written for. Take the version that it was written for (in "
        "paths.hub_mirror, or an older revision of it), or your own YAML of the task by task.include_path."
    )


def _columns(config: Mapping[str, Any]) -> list[str]:
    """Return the data set's splits and columns; none if it cannot be read, since they are only for a message."""
    import datasets

    try:
        splits = datasets.load_dataset(
            config["dataset_path"], config.get("dataset_name"), **(config.get("dataset_kwargs") or {})
        )
    except Exception:  # noqa: BLE001 - it would hide the error that is being explained
        return []
    return [*splits, *dict.fromkeys(column for split in splits.values() for column in split.column_names)]
