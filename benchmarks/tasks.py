"""Which of the harness's tasks fit: `make tasks` writes docs/tasks.md from conf/task and the installed harness."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from lm_eval.tasks import TaskManager
from omegaconf import OmegaConf

from benchmarks.regions import fill
from bitsure.base.errors import UserError
from bitsure.config.derived_tasks import original_task
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.schema import TaskSettings, register
from bitsure.tasks.harness_tasks import load_tasks
from bitsure.tasks.kinds import Continuation, FreeText, MultipleChoice, WholeText
from bitsure.tasks.task_names import WHY_NOT_SCORED, members, task_manager

CHOICES, CONTINUATION, TEXT, WRITTEN = (kind.output_type for kind in (MultipleChoice, Continuation, WholeText, FreeText))
KIND_NAMES = {
    CHOICES: "choices",
    CONTINUATION: "continuation",
    TEXT: "whole text",
    WRITTEN: "written answer",
    None: "known when loaded",
}
PAGE = PROJECT / "docs" / "tasks.md"
LANGUAGE = ("paper", "understanding", "knowledge", "language")
ABILITIES = ("in_context", "reasoning", "instruction", "self_calibration", "trust", "dialogue", "long_context", "bias")
GROUPS = (*LANGUAGE, *ABILITIES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", default="../shared/hub", help="a mirror of data sets, for the numbers of questions")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    register()
    manager = task_manager(None, include_defaults=True)
    mirror = given.mirror if Path(given.mirror).is_dir() else None
    regions = {
        "kinds": [*kinds(manager)],
        "groups": [*groups(manager, mirror)],
        "refused": [*refused(manager)],
    }
    page = fill(PAGE.read_text(encoding="utf-8"), regions)
    PAGE.write_text(page, encoding="utf-8")
    print(page)


def kinds(manager: TaskManager) -> list[str]:
    """How many of the harness's tasks are of each kind."""
    counts = Counter(kind for name in manager.all_subtasks for kind in members(manager, name).values())
    return [
        f"lm-evaluation-harness {version('lm_eval')} has {len(manager.all_subtasks):,} tasks. {counts[CHOICES]:,} ask for",
        f"choices, {counts[CONTINUATION]} for a continuation, {counts[TEXT]} score whole texts, and {counts[WRITTEN]:,} have",
        "answers that the model writes: each is scored in its own way.",
        f"{counts[None]} are programs of their own, which say what they are when they are loaded.",
    ]


def groups(manager: TaskManager, mirror: str | None) -> Iterable[str]:
    """Each option of conf/task that is a group: its tasks with kind, data set and number of questions."""
    for option in GROUPS:
        chosen = OmegaConf.load(CONF / "task" / f"{option}.yaml")
        folder = chosen.get("include_path")  # ${project:…} is resolved where Hydra's schema is registered
        names = task_manager(folder, include_defaults=True) if folder else manager
        yield from [f"### `task={option}`", "", "| name | tasks | kind | data set | questions |", "|---|---|---|---|---|"]
        for name in chosen.names:
            kind_of = members(names, original_task(name))
            kinds = ", ".join(sorted({KIND_NAMES[kind] for kind in kind_of.values()}))
            data = sorted({data_of(names, task) for task in kind_of})
            yield f"| {name} | {len(kind_of)} | {kinds} | {', '.join(data)} | {questions(name, mirror, folder)} |"
        yield ""


def data_of(manager: TaskManager, task: str) -> str:
    cfg = manager.task_index[task].cfg or {}
    return str(cfg.get("dataset_path", "its own"))


def questions(name: str, mirror: str | None, folder: str | None) -> str:
    if mirror is None:
        return "–"
    try:
        loaded = load_tasks(TaskSettings(name=name, names=[name], include_path=folder), [name], mirror)[name].tasks
    except UserError:
        return "–"
    return f"{sum(len(task.eval_docs) for task in loaded.values()):,}"


def refused(manager: TaskManager) -> Iterable[str]:
    """The tasks that are refused by what their YAML has, and why."""
    settings = {name: manager.task_index[name].cfg or {} for name in manager.all_subtasks}
    for key, why in WHY_NOT_SCORED.items():
        folders = sorted({folder(manager, name) for name, of_task in settings.items() if of_task.get(key)})
        yield f"- `{key}` ({why}): {', '.join(folders)}"
    yield "- simple_cooccurrence_bias: it has choices, but names no right one"


def folder(manager: TaskManager, name: str) -> str:
    """Of a task in the harness: the first one below lm_eval/tasks."""
    path = manager.task_index[name].yaml_path
    return path.parts[path.parts.index("tasks", path.parts.index("lm_eval")) + 1]


if __name__ == "__main__":
    main()
