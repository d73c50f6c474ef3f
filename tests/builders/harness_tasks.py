"""Some of the harness's own tasks: to list all of its fourteen thousand takes many seconds."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import lm_eval.tasks
import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import TaskIndex

HARNESS = Path(lm_eval.tasks.__file__).parent
FOLDERS = ("arc", "hellaswag", "hendrycks_ethics", "humaneval", "lambada", "mmlu/default", "mmmu", "openbookqa", "piqa")
FOLDERS += ("scrolls", "super_glue", "truthfulqa", "wikitext")
files_below = TaskIndex._iter_yaml_files


@functools.cache
def some_tasks(include_path: str | None, *, include_defaults: bool) -> TaskManager:
    """Return the harness's task manager of a folder, with or without some of the harness's own tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskIndex, "_iter_yaml_files", staticmethod(_some_files))
        return TaskManager(include_path=include_path, include_defaults=include_defaults)


def _some_files(root: Path) -> Iterable[Path]:
    return (file for folder in FOLDERS for file in files_below(root / folder)) if root == HARNESS else files_below(root)
