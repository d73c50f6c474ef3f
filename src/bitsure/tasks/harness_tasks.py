"""lm-evaluation-harness's tasks, loaded with their data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from operator import index
from typing import Any

import lm_eval.api.task
from lm_eval.tasks import TaskManager

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.hub import data_sets as hub_data
from bitsure.tasks.data_files import cannot_load, changed_data, missing_column, prepared_by_content
from bitsure.tasks.names import CHOICES, SCORED, WHY_NOT, check_fit, manager_of, members

log = logging.getLogger(__name__)

MC2 = "truthfulqa_mc2"
BBQ_DATA = "oskarvanderwal/bbq"


def load_tasks(task: TaskSettings, names: Sequence[str], hub_mirror: str | None) -> dict[str, dict]:
    """The harness's task objects for each name, with their data: {name: {"tasks": {task: object}, "data": {repository:
    origin}}}, the origins as `mirrors.origin` says them. Groups and tags give all of their tasks, and no number of their own.

    Raises UserError for a name that the harness does not have, for tasks that are not scored, before any data is looked for,
    and for data that cannot be had or read.
    """
    managers = {name: manager_of(task, name) for name in names}
    for name in names:
        check_fit(managers[name], name)
    loaded = {}
    with prepared_by_content(), hub_data.datasets_from(hub_mirror, task.include_path) as origins:
        for name in names:
            origins.clear()
            loaded[name] = {"tasks": _load(managers[name], name), "data": dict(origins)}
            for sub_name, one in loaded[name]["tasks"].items():
                if one.OUTPUT_TYPE not in SCORED:  # those that are Python's say so only now
                    raise UserError(f"task.names: {sub_name} is of the kind {one.OUTPUT_TYPE}: {WHY_NOT}.")
                _configure(one, task)
                _check_first_question(sub_name, one)
    return loaded


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
                raise cannot_load(manager, one, f", of the group {name}", of_member) from of_member
        raise cannot_load(manager, name, "", error) from error


def _configure(one: lm_eval.api.task.Task, task: TaskSettings) -> None:
    """Set the few-shot count and seed as the harness's own command line does: a task that fixes 0 keeps it."""
    own = one.get_config("num_fewshot")
    if task.num_fewshot is not None and own != 0:
        one.set_config(key="num_fewshot", value=task.num_fewshot)
    elif own is None:
        one.set_config(key="num_fewshot", value=0)
    one.set_fewshot_seed(seed=task.seed)


def _check_first_question(name: str, one: lm_eval.api.task.Task) -> None:
    """Raise UserError if the first question's choices, or the right one, cannot be read."""
    for doc in islice(one.eval_docs, 1):  # to read them all takes as long as loading them
        try:
            if one.OUTPUT_TYPE == CHOICES:
                gold_of(name, one, doc, choices_of(one, doc))
            else:
                one.doc_to_target(doc)
        except Exception as error:
            if missing := missing_column(error, one.dump_config(), list(doc)):
                raise changed_data(name, one.DATASET_PATH, one.DATASET_NAME, missing, list(doc)) from error
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


def size(loaded: dict[str, Any], limit: int | None) -> tuple[int, int]:
    """Questions of an entry of `load_tasks`, and about how many characters they and their choices have."""
    questions = characters = 0
    for task in loaded["tasks"].values():
        docs = list(task.eval_docs)[:limit]
        some = docs[:: max(1, len(docs) // 100)]
        asked = [[task.doc_to_text(doc), *(choices_of(task, doc) if task.OUTPUT_TYPE == CHOICES else ())] for doc in some]
        questions += len(docs)
        characters += sum(len(str(text)) for texts in asked for text in texts) * len(docs) // max(1, len(some))
    return questions, characters


def training_texts(task: TaskSettings, hub_mirror: str | None) -> list[str]:
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
