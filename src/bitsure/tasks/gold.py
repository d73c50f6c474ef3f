"""Which choices of a question are right, as the harness's own accuracy reads the task."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from bitsure.base.errors import UserError
from bitsure.config.derived_tasks import is_twin, original_task
from bitsure.records.log_targets import BBQ_PEOPLE
from bitsure.tasks.protocols import Document, HarnessTask

TRUTHFULQA_MC2 = "truthfulqa_mc2"
BBQ_DATA = "oskarvanderwal/bbq"


def is_truthfulqa_mc2(name: str) -> bool:
    """Return whether a task asks TruthfulQA's questions with several right choices, also in other words."""
    return name == TRUTHFULQA_MC2 or (is_twin(name) and original_task(name) == TRUTHFULQA_MC2)


def choices_of(task: HarnessTask, doc: Document) -> list[str]:
    """Return the texts of a document's choices."""
    return [str(choice) for choice in task.doc_to_choice(doc)]


def right_choices(name: str, task: HarnessTask, doc: Document, choices: Sequence[str]) -> list[int]:
    """Return the indices of the right choices.

    Args:
        name: The task's name.
        task: The task.
        doc: The document.
        choices: Its choices, as `choices_of` returns them.

    Raises:
        UserError: If the task names none of the choices as the right one.
    """
    if is_truthfulqa_mc2(name):  # its target is 0 for every question; the labels are in the document
        return [i for i, label in enumerate(doc["mc2_targets"]["labels"]) if label]
    # Where the choices stand before one common ending, the harness keeps the right one's index in the text.
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    gold = _gold(name, doc, target, choices)
    if task.DATASET_PATH == BBQ_DATA and gold[0] >= BBQ_PEOPLE:
        return list(range(BBQ_PEOPLE, len(choices)))
    return gold


def read_lists_of_texts(name: str, task: HarnessTask) -> None:
    """Let a task name its right choices by a list of their texts. The harness scores lists of indices only.

    In few-shot examples, where the harness writes the first of the texts, the list stays as it is.

    Args:
        name: The task's name.
        task: A task with choices.
    """
    as_it_is = task.doc_to_target

    def doc_to_target(doc: Document, template: object = None) -> object:
        target = as_it_is(doc, template)
        if template is not None or not isinstance(target, list) or not any(isinstance(text, str) for text in target):
            return target
        return _gold(name, doc, target, choices_of(task, doc))

    task.doc_to_target = doc_to_target  # type: ignore[method-assign]


def _gold(name: str, doc: Document, target: object, choices: Sequence[str]) -> list[int]:
    """Return the indices that a target names. Raises UserError if it names none of the choices, or one that there is not."""
    targets = target if isinstance(target, list) else [target]
    gold = [place for target in targets if (place := _place(target, choices)) is not None]
    if not gold or len(gold) < len(targets) or not all(0 <= place < len(choices) for place in gold):
        raise UserError(
            f"task {name}: the target {target!r} is none of the {len(choices)} choices {list(choices)}. "
            f"The document has the columns {', '.join(doc)}."
        )
    return gold


def _place(target: object, choices: Sequence[str]) -> int | None:
    """Return the index that a target names as the harness reads it: by a choice's text, a number or its digits."""
    if isinstance(target, str):
        if target in choices:
            return choices.index(target)
        return int(target) if target.isascii() and target.isdecimal() else None
    try:
        return index(target)  # type: ignore[arg-type]  # an int, or one of numpy's integers
    except TypeError:
        return None
