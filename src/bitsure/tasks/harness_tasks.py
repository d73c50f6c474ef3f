"""lm-evaluation-harness's tasks, loaded with their data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from lm_eval.tasks import TaskManager

from bitsure.base.errors import UserError
from bitsure.base.files import files_at, hash_file
from bitsure.config.derived_tasks import derivation_of, original_task
from bitsure.config.schema import TaskSettings
from bitsure.hub.data_sets import data_sets_from
from bitsure.hub.repositories import FILES, Origin, local_origin
from bitsure.results.measurement import MACRO
from bitsure.tasks.data_files import LOADING_ERRORS, READING_ERRORS, changed_data, load_error, missing_column
from bitsure.tasks.derivation import check_derivable, derive
from bitsure.tasks.few_shots import prepare_few_shots, repeatable_draws
from bitsure.tasks.kinds import KINDS, FreeText, kind_of
from bitsure.tasks.open_questions import OPEN, open_task
from bitsure.tasks.prompt_files import note_prompt_files
from bitsure.tasks.protocols import Document, HarnessTask
from bitsure.tasks.retrieval_tasks import KINDS as RETRIEVAL
from bitsure.tasks.retrieval_tasks import retrieval_task
from bitsure.tasks.task_code import check_trusted, files_read_by, task_code
from bitsure.tasks.task_names import check_scored, find_manager, members
from bitsure.tasks.templates import sandbox_templates

SIZE_SAMPLE = 100  # documents of a task that are read to estimate the length of all


@dataclass(frozen=True)
class LoadedTasks:
    """What one name in task.names stands for: a task, or all tasks of a group or tag."""

    tasks: dict[str, HarnessTask]
    """Task → the harness's object, with its data."""
    data: dict[str, Origin]
    """Repository → where its files came from; under `files`, files of this machine that no repository holds."""
    places: tuple[str, ...] = ()
    """The files, folders and patterns of this machine that were read, apart from the harness and the hub's cache."""

    @property
    def has_written_answers(self) -> bool:
        """Whether the model writes the answers of one of the tasks."""
        return any(FreeText.output_type == task.OUTPUT_TYPE for task in self.tasks.values())

    def count_requests(self, settings: TaskSettings) -> int:
        """Return how many choices, continuations and texts are scored."""
        return sum(
            kind_of(task).n_requests(task, doc, settings) for task in self.tasks.values() for doc in asked(task, settings)
        )

    def estimate_size(self, settings: TaskSettings) -> tuple[int, int]:
        """Return the number of questions, and about how many characters they and their choices have."""
        questions = characters = 0
        for task in self.tasks.values():
            docs = asked(task, settings)
            some = docs[:: max(1, len(docs) // SIZE_SAMPLE)]
            questions += len(docs)
            sampled = sum(len(text) for doc in some for text in kind_of(task).texts(task, doc))
            characters += sampled * len(docs) // max(1, len(some))
        return questions, characters


def asked(task: HarnessTask, settings: TaskSettings) -> list[Document]:
    """Return the documents of a task that are scored."""
    return list(islice(task.eval_docs, settings.questions_of(len(task.eval_docs))))


def load_tasks(task: TaskSettings, names: Sequence[str], hub_mirror: str | None, fetch: bool = False) -> dict[str, LoadedTasks]:
    """Load tasks with their data.

    Args:
        task: The settings: few-shot count, how examples are drawn, the folder of the user's own tasks.
        names: Names of tasks, groups or tags. A group or tag stands for its tasks; it has no number of its own.
        hub_mirror: A directory that holds data sets, or None.
        fetch: Put data that the mirror lacks into it first.

    Returns:
        Name → its tasks.

    Raises:
        UserError: If the harness does not know a name, or a task is of a kind that is not scored, or has no choices to make a
            derived name's questions of (all before any data is read), or data is not available or cannot be read, or there are
            too few examples.
    """
    managers = {name: find_manager(task, original_task(name)) for name in names}
    code = {name: task_code(manager, original_task(name)) for name, manager in managers.items()}
    for name in names:
        check_scored(managers[name], original_task(name))
        check_derivable(managers[name], name)
        check_trusted(code[name], name, task)
    sandbox_templates()
    note_prompt_files()
    loaded = {}
    with data_sets_from(hub_mirror, task.include_path, fetch) as origins:
        for name in names:
            origins.clear()
            with files_read_by(code[name]) as places:
                tasks = _load_and_check(managers[name], name, task)
                if code[name].runs:
                    _read_documents(tasks.values(), task)
            files = _files_of_this_machine(places, hub_mirror, task.include_path)
            data = dict(origins) | ({FILES: local_origin(files)} if files else {})
            loaded[name] = LoadedTasks(tasks, data, tuple(sorted(map(str, places))))
    return loaded


def _load_and_check(manager: TaskManager, name: str, task: TaskSettings) -> dict[str, HarnessTask]:
    """Load the tasks of a name, set how their examples are drawn, and read the first document of each."""
    with repeatable_draws():
        tasks = _load(manager, original_task(name), task)
    if MACRO in tasks:
        raise UserError(f"task.names: {MACRO} is what the mean over tasks is called. Give the task another name in its YAML.")
    for member, harness_task in tasks.items():
        if harness_task.OUTPUT_TYPE not in KINDS:  # the kind of a Python task is known only now
            raise UserError(
                f"task.names: {member} is of the kind {harness_task.OUTPUT_TYPE!r}, which is none of {', '.join(KINDS)}. "
                "Leave it out."
            )
        kind_of(harness_task).prepare(member, harness_task)
        prepare_few_shots(member, harness_task, task)
        _check_first_document(member, harness_task)
    if (derivation := derivation_of(name)) is None:
        return tasks
    derived = {f"{member}@{derivation}": harness_task for member, harness_task in tasks.items()}
    for member, harness_task in derived.items():
        derive(member, harness_task, task.seed)
        _check_first_document(member, harness_task)
    return derived


def _read_documents(tasks: Iterable[HarnessTask], settings: TaskSettings) -> None:
    """Have tasks read what they will score, so that files which their own code opens only then are noted."""
    with repeatable_draws():
        for task in tasks:
            for doc in asked(task, settings):
                kind_of(task).texts(task, doc)
                task.doc_to_target(doc)


def _files_of_this_machine(places: Iterable[Path], hub_mirror: str | None, own_folder: str | None) -> dict[Path, str | None]:
    """Return the files at places outside the mirror, with their hashes, but for those that lie in the user's own folder.

    The hash of that folder has these; a link in it may lead elsewhere.
    """
    mirror = Path(hub_mirror).absolute() if hub_mirror else None
    folder = Path(own_folder).resolve() if own_folder else None
    outside = [place for place in sorted(places) if mirror is None or not place.is_relative_to(mirror)]
    files = [file for place in outside for file in files_at(place)]
    return {file: hash_file(file) for file in files if folder is None or not file.resolve().is_relative_to(folder)}


def _load(manager: TaskManager, name: str, task: TaskSettings) -> dict[str, HarnessTask]:
    """Load the tasks of a name; if one of several fails, the error names it."""
    try:
        return cast("dict[str, HarnessTask]", manager.load([_made_on_the_spot(name, task) or name])["tasks"])
    except LOADING_ERRORS as error:
        names = list(members(manager, name))
        for member in names if names != [name] else ():
            try:
                manager.load([member])
            except LOADING_ERRORS as member_error:
                if explanation := load_error(manager, member, f", of the group {name}", member_error):
                    raise explanation from member_error
                raise
        if explanation := load_error(manager, name, "", error):
            raise explanation from error
        raise


def _made_on_the_spot(name: str, task: TaskSettings) -> dict[str, Any] | None:
    """Return a task that the harness's files do not have; None for one that they have."""
    if name in OPEN:
        return open_task(name, task.open)
    return retrieval_task(name, task.retrieval, task.seed) if name in RETRIEVAL else None


def _check_first_document(name: str, task: HarnessTask) -> None:
    """Raise UserError if what is scored of the first document cannot be read; reading all takes as long as loading them."""
    for doc in islice(task.eval_docs, 1):
        try:
            kind_of(task).check_readable(name, task, doc)
            if n := task.get_config("num_fewshot"):
                task.fewshot_context(doc, num_fewshot=n, gen_prefix=task.doc_to_prefix(doc))
        except READING_ERRORS as error:
            if column := missing_column(error, task.dump_config(), list(doc)):
                raise changed_data(name, task.DATASET_PATH, task.DATASET_NAME, column, list(doc)) from error
            raise
