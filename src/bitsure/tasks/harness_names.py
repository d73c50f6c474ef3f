"""The names of lm-evaluation-harness's tasks, groups and tags, read from its files without importing it or parsing them."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from bitsure.base.errors import UserError, did_you_mean
from bitsure.config.derived_tasks import original_task
from bitsure.config.option_groups import options
from bitsure.config.paths import project_path
from bitsure.config.schema import TaskSettings

NAMING = re.compile(r"""^["']?(task|group|tag)["']?\s*:[ \t]*(.*)$""", re.MULTILINE)
ITEM = re.compile(r"""[ \t]*-[ \t]*["']?([^"'\s#:]+)""")
PRESET_FOLDERS = ("pocket/tasks", "tasks/adv_glue")  # which options of conf/task name as include_path
NO_YAML = (".py", ".md", ".txt", ".json", ".jsonl")


def check_task_names(task: TaskSettings) -> None:
    """Raise UserError for names in task.names that no file of the harness, or of `task.include_path`, has.

    The harness itself takes 20 seconds to read its 15,000 files; this takes one, and none for names that conf/task has. A name
    that passes here may still be refused there.
    """
    own = names_in(Path(task.include_path)) if task.include_path else frozenset()
    missing = [name for name in map(original_task, task.names) if name not in own]
    presets = [project_path(folder) for folder in PRESET_FOLDERS]
    if task.include_path and Path(task.include_path) not in presets and any(set(missing) & names_in(p) for p in presets):
        to_name = f"give 'task.names=[…]'; the folder has {', '.join(sorted(own))}" if own else "the folder holds no task"
        raise UserError(
            f"task.include_path={task.include_path}: {to_name}. It takes the place of the project's own folder, which "
            f"has the tasks of task={task.name}."
        )
    if not missing or set(missing) <= {
        original_task(name) for option in options("task") for name in option.content.get("names", ())
    }:
        return
    known = own | names_of_the_harness()
    if unknown := [name for name in missing if name not in known]:
        raise no_such_task(task, unknown, sorted(known), sorted(own))


def no_such_task(task: TaskSettings, unknown: list[str], known: list[str], own: list[str]) -> UserError:
    """Return the error for names of tasks that there are not.

    Args:
        task: The settings.
        unknown: The names.
        known: Those that there are.
        own: Those in the folder `task.include_path`.
    """
    presets = [project_path(folder) for folder in PRESET_FOLDERS]
    is_own = task.include_path is not None and Path(task.include_path) not in presets
    where = "lm-evaluation-harness" + (f" or in task.include_path={task.include_path}" if is_own else "")
    listed = " No task ".join(f"{name!r}.{did_you_mean(name, known)}" for name in unknown)
    folder = ""
    if is_own:
        folder = f" The folder has {', '.join(own)}." if own else " The folder holds no task."
    return UserError(
        f"task.names: in {where} there is no task {listed} `bitsure list tasks WORD` lists those with a word.{folder}"
    )


@cache
def names_of_the_harness() -> frozenset[str]:
    """Return every name that the harness's files have; none where it is not installed."""
    return frozenset(_files_of_the_harness())


def folder_of_task(name: str) -> Path | None:
    """Return the harness's folder with the one file that defines a task; None for other names, and where several files do."""
    folders = {(key, file.parent) for file in _files_of_the_harness().get(name, ()) for key in _keys_of(name, file)}
    return next(iter(folders))[1] if [key for key, _ in folders] == ["task"] else None


@cache
def _files_of_the_harness() -> dict[str, list[Path]]:
    """Return name → the harness's files that have it."""
    package = find_spec("lm_eval")
    places = package.submodule_search_locations if package else None
    return _files_by_name(Path(next(iter(places))) / "tasks") if places else {}


def names_in(folder: Path) -> frozenset[str]:
    """Return the values of task, group and tag in a folder's files, which YAML files may include without a suffix."""
    return frozenset(_files_by_name(folder))


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    files_of: dict[str, list[Path]] = {}
    for place, _, files in os.walk(folder, followlinks=True):
        for file in files:
            if not file.endswith(NO_YAML):
                for name in set().union(*_names_of(Path(place, file)).values()):
                    files_of.setdefault(name, []).append(Path(place, file))
    return files_of


def _keys_of(name: str, file: Path) -> list[str]:
    """Return what a file defines by a name: a task, a group or a tag; nothing where it lists the name in a group."""
    names = _names_of(file)
    is_group = bool(names["group"])
    return [key for key in names if name in names[key] and not (key == "task" and is_group)]


def _names_of(file: Path) -> dict[str, set[str]]:
    """Return the values of each of the keys task, group and tag."""
    names: dict[str, set[str]] = {"task": set(), "group": set(), "tag": set()}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return names
    for naming in NAMING.finditer(text):
        value = naming[2].partition(" #")[0].strip()
        if value.startswith("["):
            names[naming[1]] |= {name.strip(" \"'") for name in value.strip("[]").split(",")}
        elif value:
            names[naming[1]].add(value.strip("\"'"))
        else:
            names[naming[1]] |= _items(text[naming.end() + 1 :])
    return names


def _items(text: str) -> set[str]:
    """Return the items of the list that a text begins with."""
    names: set[str] = set()
    for line in text.splitlines():
        if item := ITEM.match(line):
            names.add(item[1])
        elif line.strip() and not line.startswith((" ", "\t", "#")):
            break
    return names
