"""The data of the harness's tasks: prepared anew where files have changed, and errors that say what is wrong with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json

log = logging.getLogger(__name__)

UNDEFINED = re.compile(r"'([^']+)' is undefined|has no attribute '([^']+)'")


@contextmanager
def prepared_by_content() -> Iterator[None]:
    """Within the block, `datasets` keeps what it prepares of a directory by the names, sizes and times of its files.

    By itself it goes by the directory's name alone (datasets 5): a mirror whose files have changed, or another mirror, would
    silently give the old questions.
    """
    import datasets

    original = datasets.load_dataset

    def load_dataset(path: str, *args, **kwargs):
        if (folder := Path(path)).is_dir():
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            listing = [(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
            kwargs["cache_dir"] = str(Path(datasets.config.HF_DATASETS_CACHE, "directories", hash_json(listing)[:24]))
        return original(path, *args, **kwargs)

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = original


def cannot_load(manager: TaskManager, name: str, group: str, error: Exception) -> UserError:
    log.info("task %s cannot be loaded", name, exc_info=error)
    if isinstance(error, UserError):
        return type(error)(f"task.names: {name}{group}: {error}")  # what is only not here yet stays so
    entry = manager.task_index.get(name)
    cfg = (entry.cfg if entry else None) or {}
    columns = _columns(cfg)
    if missing := missing_column(error, cfg, columns):
        return changed_data(f"{name}{group}", cfg.get("dataset_path"), cfg.get("dataset_name"), missing, columns)
    said = str(error).strip().split("\n")[0][:300]
    return UserError(f"task.names: {name}{group} cannot be loaded: {type(error).__name__}: {said}")


def missing_column(error: Exception, cfg: dict[str, Any], columns: list[str]) -> str | None:
    """What the documents do not have: as the error says, else as the task's templates tell; None where it is another error."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if found := UNDEFINED.search(str(error)):
        return found[1] or found[2]
    if not columns or "process_docs" in cfg:  # which may add columns
        return None
    return next((name for name in _read_columns(cfg) if name not in columns), None)


def _read_columns(cfg: dict[str, Any]) -> list[str]:
    """The columns that a task's YAML reads: by a bare name, or in a template."""
    from jinja2 import Environment, meta

    fields = [cfg[key] for key in ("doc_to_text", "doc_to_choice", "doc_to_target") if isinstance(cfg.get(key), str)]
    templates = (sorted(meta.find_undeclared_variables(Environment().parse(field))) for field in fields)
    return [name for field, used in zip(fields, templates, strict=True) for name in ([field] if field.isidentifier() else used)]


def changed_data(task: str, data: str | None, subset: str | None, column: str, columns: list[str]) -> UserError:
    return UserError(
        f"task.names: {task} cannot read its data set {data}{f' ({subset})' if subset else ''}: there is no {column!r}"
        + (f" among its splits and columns {', '.join(columns)}" if columns else "")
        + ". The data set is another than the harness's task was written for. Take the version that it was written for (in "
        "paths.hub_mirror, or an older revision of it), or your own YAML of the task by task.include_path."
    )


def _columns(cfg: dict[str, Any]) -> list[str]:
    """The data set's splits and columns, as far as they can be had."""
    import datasets

    try:
        found = datasets.load_dataset(cfg["dataset_path"], cfg.get("dataset_name"), **(cfg.get("dataset_kwargs") or {}))
    except Exception:  # it is only for a message
        return []
    return [*found, *dict.fromkeys(column for split in found.values() for column in split.column_names)]
