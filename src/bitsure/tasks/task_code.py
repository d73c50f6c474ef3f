"""The Python code that task files of a user's folder name: listed before it runs, and refused without `task.trust`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.api.metrics  # registers the harness's metrics
import lm_eval.tasks
from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager, _yaml_loader
from lm_eval.tasks._index import Kind

from bitsure.base.errors import UserError
from bitsure.base.opened_files import note, opened_files
from bitsure.config.schema import TaskSettings

log = logging.getLogger(__name__)

HARNESS = Path(lm_eval.tasks.__file__).resolve().parent  # its own tasks are trusted, as the installed package is


@dataclass(frozen=True)
class TaskCode:
    """What the YAML files of a task are made of, besides their data."""

    yaml_files: list[Path]
    """The files of a user's folder, with those that they include."""
    modules: list[Path]
    """The Python files that they name."""
    installed: list[str]
    """The modules that they name and that lie in no folder of theirs."""
    runs: list[str]
    """What of a user's would run, in words."""


def task_code(manager: TaskManager, name: str) -> TaskCode:
    """Return the code that the tasks of a name would run; nothing of it runs now.

    Args:
        manager: The task manager that knows the name.
        name: A task, a group or a tag.
    """
    functions: list[tuple[str, Path]] = []
    files: dict[Path, None] = {}
    with _read_only(functions, files):
        configs = [_yaml_loader.load_yaml(file) for file in dict.fromkeys(_own_yaml_files(manager, name, set()))]
    named = dict.fromkeys((function, folder) for function, folder in functions if not folder.is_relative_to(HARNESS))
    modules = {_module(function, folder): function.rpartition(".")[0] for function, folder in named}
    runs = [_in_words(function, folder) for function, folder in named] + [
        f"{name} of HF Evaluate" for name in _metric_scripts(configs)
    ]
    return TaskCode(
        yaml_files=[file for file in files if not file.resolve().is_relative_to(HARNESS)],
        modules=[file for file in modules if file.is_file()],
        installed=[module for file, module in modules.items() if not file.is_file()],
        runs=list(dict.fromkeys(runs)),
    )


def check_trusted(code: TaskCode, name: str, task: TaskSettings) -> None:
    """Say what would run before it runs.

    Raises:
        UserError: If the settings do not trust it.
    """
    listed = ", ".join(code.runs)
    if not task.trust and code.runs:
        raise UserError(
            f"task.names: {name} of {task.include_path} would run Python code of its own: {listed}. It is not run unless you "
            "ask for it. Read that code, then add task.trust=true."
        )
    if code.runs:
        log.warning("task %s: Python code of %s is run: %s", name, task.include_path, listed)


@contextmanager
def files_read_by(code: TaskCode) -> Iterator[set[Path]]:
    """Record the files that loading a task reads: its own, its data, and what its code opens.

    Yields:
        The files, folders and patterns, complete when the block ends.
    """
    from datasets.config import HF_CACHE_HOME

    with opened_files({module.parent for module in code.modules}, [Path(HF_CACHE_HOME)]) as places:
        for file in (*code.yaml_files, *code.modules):
            note(file)
        for module in code.modules:  # imported anew, the files that it opens meanwhile are seen again
            sys.modules.pop(str(module.resolve().with_suffix("")), None)
        yield places
        for name in code.installed:
            if source := getattr(sys.modules.get(name), "__file__", None):
                note(Path(source))


def _own_yaml_files(manager: TaskManager, name: str, visited: set[str]) -> Iterator[Path]:
    """Yield the YAML files of a name and of all its members that lie outside the harness."""
    entry = manager.task_index.get(name)
    if entry is None or name in visited:
        return
    visited.add(name)
    if entry.yaml_path is not None and not (file := Path(entry.yaml_path)).resolve().is_relative_to(HARNESS):
        yield file
    groups = _names((entry.cfg or {}).get("task")) if entry.kind is Kind.GROUP else ()
    for member in sorted(entry.tags) if entry.kind is Kind.TAG else groups:
        yield from _own_yaml_files(manager, member, visited)


def _names(listed: Any) -> Iterator[str]:
    """Yield the names in a group's list: names, and entries that may be groups themselves."""
    for item in listed if isinstance(listed, list) else [listed]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from _names(item.get("task"))
            yield from _names(item.get("group"))


@contextmanager
def _read_only(functions: list[tuple[str, Path]], files: dict[Path, None]) -> Iterator[None]:
    """Within the block, let the harness read YAML files without importing what they name; collect the names and the files."""
    import_function, load_yaml = _yaml_loader._import_func_in_yml, _yaml_loader.load_yaml

    def collect(function: str, folder: Path) -> object:
        functions.append((function, folder))
        return object()  # stands for the function in the settings

    def load(file: Path, **settings: Any) -> Any:  # which the harness calls for included files too
        files[Path(file).absolute()] = None
        return load_yaml(file, **settings)

    _yaml_loader._import_func_in_yml, _yaml_loader.load_yaml = collect, load
    try:
        yield
    finally:
        _yaml_loader._import_func_in_yml, _yaml_loader.load_yaml = import_function, load_yaml


def _metric_scripts(configs: Sequence[Any]) -> Iterator[str]:
    """Yield the metrics that the harness would load from HF Evaluate, which are scripts of a folder or of the hub.

    Of a task with `process_results` it loads none, unless the entry of a group takes that away.
    """
    parts = [part for config in configs for part in _with_entries(config)]
    taken_away = any(part.get("process_results", "") is None for part in parts)
    for part in parts:
        if taken_away or part.get("process_results") is None:
            for entry in part.get("metric_list") or ():
                metric = entry.get("metric")
                if isinstance(metric, str) and (entry.get("hf_evaluate") or metric not in metric_registry):
                    yield metric


def _with_entries(config: Any) -> Iterator[dict[str, Any]]:
    """Yield a configuration and, of a group, the entries with settings of their own."""
    if isinstance(config, dict):
        yield config
        for entry in config["task"] if isinstance(config.get("task"), list) else ():
            yield from _with_entries(entry)


def _module(function: str, folder: Path) -> Path:
    """Return the file that the harness takes a function from, if there is one; otherwise it imports an installed module."""
    return folder / f"{function.rpartition('.')[0].replace('.', '/')}.py"


def _in_words(function: str, folder: Path) -> str:
    module, _, name = function.rpartition(".")
    path = _module(function, folder)
    return f"{name} of {path if path.is_file() else f'the module {module}'}"
