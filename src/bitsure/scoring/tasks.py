"""lm-evaluation-harness's tasks: found by name, refused where there is no confidence to take, and loaded with their data."""

from __future__ import annotations

import difflib
import functools
import logging
import re
from collections.abc import Sequence
from operator import index
from typing import Any

import lm_eval.api.task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

from bitsure import hub
from bitsure.config import Task
from bitsure.errors import UserError

log = logging.getLogger(__name__)

CHOICES, CONTINUATION, TEXT = "multiple_choice", "loglikelihood", "loglikelihood_rolling"  # what can be scored
WHY_NOT = "the answer is text that the model writes: no probability of it is asked for, so that there is no confidence to take"
MC2 = "truthfulqa_mc2"
BBQ_DATA = "oskarvanderwal/bbq"
UNDEFINED = re.compile(r"'([^']+)' is undefined|has no attribute '([^']+)'")


def load_tasks(task: Task, names: Sequence[str], hub_mirror: str | None) -> dict[str, dict]:
    """The harness's task objects for each name, with their data: {name: {"tasks": {task: object}}}. Groups and tags give all
    of their tasks, and no number of their own.

    Raises UserError for a name that the harness does not have, for tasks that are not scored, before any data is looked for,
    and for data that cannot be had or read.
    """
    managers = {name: _manager_of(task, name) for name in names}
    for name in names:
        check_fit(managers[name], name)
    loaded = {}
    with hub.datasets_from(hub_mirror, task.include_path):
        for name in names:
            loaded[name] = {"tasks": _load(managers[name], name)}
            for sub_name, one in loaded[name]["tasks"].items():
                if one.OUTPUT_TYPE not in (CHOICES, CONTINUATION, TEXT):  # those that are Python's say so only now
                    raise UserError(f"task.names: {sub_name} is of the kind {one.OUTPUT_TYPE}: {WHY_NOT}.")
                _configure(one, task)
                _check_first_question(sub_name, one)
    return loaded


def _manager_of(task: Task, name: str) -> TaskManager:
    """What knows a name: one's own folder alone, which is quick, or all that the harness has."""
    manager = _manager(task.include_path, include_defaults=False)
    if task.include_path is None or name not in manager.all_tasks:
        manager = _manager(task.include_path, include_defaults=True)
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks, n=5)
        raise UserError(
            f"task.names: there is no task {name!r} in lm-evaluation-harness"
            + (f" or in task.include_path={task.include_path}" if task.include_path else "")
            + (f". Near: {', '.join(near)}." if near else ".")
            + " `lm-eval ls tasks` lists them all."
        )
    return manager


@functools.cache
def _manager(include_path: str | None, include_defaults: bool) -> TaskManager:
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
    unfit = [task for task, kind in kinds.items() if kind not in (CHOICES, CONTINUATION, TEXT, None)]
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


def _load(manager: TaskManager, name: str) -> dict[str, Any]:
    """The task objects of a name. Where one of several cannot be had, the error names it."""
    try:
        return manager.load([name])["tasks"]
    except Exception as error:
        tasks = list(members(manager, name))
        for one in tasks if tasks != [name] else ():
            try:
                manager.load([one])
            except Exception as of_member:
                raise _cannot_load(manager, one, f", of the group {name}", of_member) from of_member
        raise _cannot_load(manager, name, "", error) from error


def _cannot_load(manager: TaskManager, name: str, group: str, error: Exception) -> UserError:
    log.info("task %s cannot be loaded", name, exc_info=error)
    if isinstance(error, UserError):
        return UserError(f"task.names: {name}{group}: {error}")
    entry = manager.task_index.get(name)
    cfg = (entry.cfg if entry else None) or {}
    columns = _columns(cfg)
    if missing := _missing_column(error, cfg, columns):
        return _changed_data(f"{name}{group}", cfg.get("dataset_path"), cfg.get("dataset_name"), missing, columns)
    said = str(error).strip().split("\n")[0][:300]
    return UserError(f"task.names: {name}{group} cannot be loaded: {type(error).__name__}: {said}")


def _missing_column(error: Exception, cfg: dict[str, Any], columns: list[str]) -> str | None:
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


def _changed_data(task: str, data: str | None, subset: str | None, column: str, columns: list[str]) -> UserError:
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


def _configure(one: lm_eval.api.task.Task, task: Task) -> None:
    """Set the few-shot count and seed as the harness's own command line does: a task that fixes 0 keeps it."""
    own = one.get_config("num_fewshot")
    if task.num_fewshot is not None and own != 0:
        one.set_config(key="num_fewshot", value=task.num_fewshot)
    elif own is None:
        one.set_config(key="num_fewshot", value=0)
    one.set_fewshot_seed(seed=task.seed)


def _check_first_question(name: str, one: lm_eval.api.task.Task) -> None:
    """Raise UserError if the first question's choices, or the right one, cannot be read."""
    for doc in list(one.eval_docs)[:1]:
        try:
            if one.OUTPUT_TYPE == CHOICES:
                gold_of(name, one, doc, choices_of(one, doc))
            else:
                one.doc_to_target(doc)
        except Exception as error:
            if missing := _missing_column(error, one.dump_config(), list(doc)):
                raise _changed_data(name, one.DATASET_PATH, one.DATASET_NAME, missing, list(doc)) from error
            raise


def choices_of(task: lm_eval.api.task.Task, doc: dict) -> list[str]:
    return [str(choice) for choice in task.doc_to_choice(doc)]


def gold_of(name: str, task: lm_eval.api.task.Task, doc: dict, choices: list[str]) -> list[int]:
    """The indices of the right choices. Raises UserError where the task names none of them."""
    if name == MC2:  # its target says 0 for every question; the labels are in the document
        return [i for i, label in enumerate(doc["mc2_targets"]["labels"]) if label]
    # where the choices stand before one common ending, the harness keeps the right one's index in the text
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    targets = target if isinstance(target, list) else [target]
    gold = [g for t in targets if (g := _index(t, choices)) is not None]
    if not gold or len(gold) < len(targets) or not all(0 <= g < len(choices) for g in gold):
        raise UserError(
            f"task {name}: the target {target!r} is none of the {len(choices)} choices {choices}. "
            f"The document has the columns {', '.join(doc)}."
        )
    if task.DATASET_PATH == BBQ_DATA and gold[0] >= 2:  # two people, then ten ways to say that it is not known
        return list(range(2, len(choices)))
    return gold


def _index(target: Any, choices: list[str]) -> int | None:
    """Of a target as the harness reads it: a choice's text, a number or its digits."""
    if target in choices:
        return choices.index(target)
    if isinstance(target, str):
        return int(target) if target.isdigit() else None
    try:
        return index(target)  # numpy's integers too
    except TypeError:
        return None


def count_requests(loaded: dict[str, Any], limit: int | None) -> int:
    """How many choices (or continuations, or texts) an entry of `load_tasks` will be asked for."""
    total = 0
    for task in loaded["tasks"].values():
        docs = list(task.eval_docs)[:limit]
        total += sum(len(task.doc_to_choice(doc)) for doc in docs) if task.OUTPUT_TYPE == CHOICES else len(docs)
    return total


def training_texts(task: Task, hub_mirror: str | None) -> list[str]:
    """Every question of the tasks' training splits with its right answer, as scoring puts them, without examples before it.

    What is word for word a scored question with its answer is left out. Raises UserError if a task has no training split
    apart from the scored one, or nothing is left of all.
    """
    loaded = load_tasks(task, task.names, hub_mirror)
    tasks = {name: one for entry in loaded.values() for name, one in entry["tasks"].items()}
    if without := [name for name, one in tasks.items() if not _has_own_training_split(one)]:
        raise UserError(
            f"calib=task: {', '.join(without)} {'has' if len(without) == 1 else 'have'} no training split apart from the "
            "scored one. Leave them out of task.names, or take another text, such as calib=c4 or calib=text calib.path=FILE."
        )
    scored = {_answered(name, one, doc) for name, one in tasks.items() for doc in one.eval_docs}
    texts = [_answered(name, one, doc) for name, one in tasks.items() for doc in one.training_docs()]
    kept = [text for text in texts if text not in scored]
    if not kept:
        raise UserError(
            f"calib=task: all {len(texts)} training questions of {', '.join(tasks)} are scored questions too. "
            "Take another text, such as calib=c4 or calib=text calib.path=FILE."
        )
    log.info("calibration text: %d training questions; %d others are scored and left out", len(kept), len(texts) - len(kept))
    return kept


def _has_own_training_split(task: lm_eval.api.task.Task) -> bool:
    scored = task.config.test_split or task.config.validation_split
    return task.config.training_split not in (None, scored) and task.config.training_split in task.dataset


def _answered(name: str, task: lm_eval.api.task.Task, doc: dict) -> str:
    """The prompt of a question and its (first) right choice, its continuation, or the whole text."""
    context = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    requests = task.construct_requests(doc, context)
    if task.OUTPUT_TYPE != CHOICES:
        return "".join(requests.args[:2])
    [right, *_] = gold_of(name, task, doc, choices_of(task, doc))
    return "".join(requests[right].args[:2])
