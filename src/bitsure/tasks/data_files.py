"""Errors that say what is wrong with the data of a task of the harness."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from lm_eval.tasks import TaskManager

from bitsure.base.errors import NotInstalled, UserError

log = logging.getLogger(__name__)

# What the harness raises for a document without a column: in a task's Python, in its templates, and in a template whose text it
# takes for a list of choices, because it is the name of no column.
READING_ERRORS = (KeyError, UndefinedError, ValueError, SyntaxError)
LOADING_ERRORS = (UserError, ModuleNotFoundError, *READING_ERRORS)  # what loading a task raises besides errors of a program
UNDEFINED_NAME = re.compile(r"'([^']+)' is undefined|has no attribute '([^']+)'")


def load_error(manager: TaskManager, name: str, group: str, error: Exception) -> UserError | None:
    """Return the error for a task whose data is not available or lacks a column, or that needs a package that is not installed.

    It is None for an error with another cause, such as a module that bitsure or a user's own code of a task imports.

    Args:
        manager: The task manager that knows the task.
        name: The task.
        group: ", of the group NAME" where the task was loaded as a member of one, otherwise "".
        error: What loading raised, one of LOADING_ERRORS.
    """
    log.info("task %s cannot be loaded", name, exc_info=error)
    if isinstance(error, UserError):
        return error.prefixed(f"task.names: {name}{group}: ")
    if isinstance(error, ModuleNotFoundError):
        if not error.name or error.name.partition(".")[0] == "bitsure" or _is_code_of(error, manager.include_path):
            return None
        return NotInstalled(
            f"task.names: {name}{group} needs the Python module {error.name}, which is not installed. Install the package "
            "that has it, which may have another name, with what else the harness needs for this task, or leave the task out."
        )
    if _is_own_error(error):
        return None
    entry = manager.task_index.get(name)
    config = (entry.cfg if entry else None) or {}
    columns = _columns(config) if "dataset_path" in config else []
    if missing := missing_column(error, config, columns):
        return changed_data(f"{name}{group}", config.get("dataset_path"), config.get("dataset_name"), missing, columns)
    return None


def _is_own_error(error: Exception) -> bool:
    """Return whether an error is raised by bitsure itself, or while it reads a data set for the harness; not by a document."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return modules[-1].startswith("bitsure.") or any(module.startswith("bitsure.hub.") for module in modules)


def _is_code_of(error: Exception, folder: str | None) -> bool:
    """Return whether an error is raised by bitsure itself, or by code in a folder."""
    frames = [
        frame for frame, _ in traceback.walk_tb(error.__traceback__) if not frame.f_code.co_filename.startswith("<frozen")
    ]
    file = Path(frames[-1].f_code.co_filename)
    is_own = str(frames[-1].f_globals.get("__name__")).startswith("bitsure.")
    return is_own or (folder is not None and file.resolve().is_relative_to(Path(folder).resolve()))


def missing_column(error: Exception, config: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """Return the column that a task reads and its documents lack; None if the error has another cause.

    Args:
        error: What reading a document raised, one of READING_ERRORS; it may name the column.
        config: The task's settings, whose templates name the columns otherwise.
        columns: The columns of the documents; empty if unknown.
    """
    if _is_own_error(error):
        return None
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, UndefinedError) and (match := UNDEFINED_NAME.search(str(error))):
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
    except UserError:  # it would hide the error that is being explained
        return []
    return [*splits, *dict.fromkeys(column for split in splits.values() for column in split.column_names)]
