"""Tasks whose questions are made of another task's: is a proposed answer right?, and the same questions in other words."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice

from lm_eval.api.utils import maybe_delimit
from lm_eval.tasks import TaskManager

from bitsure.base.errors import UserError
from bitsure.config.derived_tasks import SELF, derivation_of, original_task
from bitsure.tasks.gold import choices_of, right_choices
from bitsure.tasks.kinds import MultipleChoice
from bitsure.tasks.perturbations import ReorderedOptions, listed_options, with_distractor, with_other_order, with_typos
from bitsure.tasks.protocols import Document, HarnessTask
from bitsure.tasks.task_names import members

TEMPLATES = ("doc_to_text", "doc_to_choice", "doc_to_target")  # what reads a document
EXAMPLE = "example"  # stands for the template of a few-shot example
JUDGEMENTS = ["right", "wrong"]  # hardly ever a task's choices: a model that copies the proposal would seem to judge it
IS_IT_RIGHT = "\nIs this answer right or wrong?\nAnswer:"
FIRST = 20  # of these questions one can be changed, or the task is refused


def check_derivable(manager: TaskManager, name: str) -> None:
    """Raise UserError if a name asks for questions made of a task without choices; no data is read."""
    if derivation_of(name) is None:
        return
    for member, kind in members(manager, original_task(name)).items():
        if kind is not None:
            _check_kind(name, member, kind)


def _check_kind(name: str, member: str, kind: str) -> None:
    if kind != MultipleChoice.output_type:
        raise UserError(
            f"task.names: {name}: @{derivation_of(name)} makes questions of tasks with choices ({MultipleChoice.output_type}); "
            f"{member} is of the kind {kind}. Leave it out."
        )


def derive(name: str, task: HarnessTask, seed: int) -> None:
    """Change a loaded task into the one of a derived name.

    Args:
        name: The derived name, such as `arc_easy@typos`.
        task: The task that it is made of, ready to be scored as it is. Its documents stay as they are.
        seed: Draws what is changed, with each question's text.

    Raises:
        UserError: If the task has no choices, or nothing in its first questions can be changed in this way.
    """
    _check_kind(name, original_task(name), task.OUTPUT_TYPE)
    derivation, original = derivation_of(name), copy.copy(task)
    original._config = copy.copy(task.config)  # which a copy shares, and which changes below
    task.set_config(key="task", value=name)
    if derivation == SELF:
        _ask_of_answers(name, task, original)
        return
    if task.multiple_input:
        raise UserError(
            f"task.names: {name}: in {original_task(name)} the choices stand before one common ending, so that there is no "
            "question to put in other words. Leave it out."
        )
    if derivation == "order":
        _reorder(name, task, original, seed)
    else:
        perturb = {"typos": with_typos, "distractor": with_distractor}[str(derivation)]
        _put_otherwise(task, original, lambda doc, text: perturb(text, _drawing(seed, text)))
    first = list(islice(task.eval_docs, FIRST))
    if first and all(task.doc_to_text(doc) == original.doc_to_text(doc) for doc in first):
        raise UserError(f"task.names: {name}: there is nothing to change in the first {len(first)} questions. Leave it out.")


def _drawing(seed: int, text: str) -> random.Random:
    """Return a generator that is the same for the same question, whatever else is asked."""
    return random.Random(f"{seed} {text}")


def _put_otherwise(task: HarnessTask, original: HarnessTask, change: Callable[[Document, str], str]) -> None:
    """Let a task put its questions in other words. Few-shot examples, which have a template, stay as they are."""

    def doc_to_text(doc: Document, template: object = None) -> object:
        text = original.doc_to_text(doc, template)
        return change(doc, text) if template is None else text

    task.doc_to_text = doc_to_text  # type: ignore[method-assign]


def _reorder(name: str, task: HarnessTask, original: HarnessTask, seed: int) -> None:
    """List a task's options in another order.

    Where the choices are the options' labels, each document's choices are its labels in the options' first order, so that the
    k-th choice and the right one are the same option as in the original task.
    """

    def reordered(doc: Document) -> ReorderedOptions | None:
        text = str(original.doc_to_text(doc))
        return with_other_order(text, len(original.doc_to_choice(doc)), _drawing(seed, text))

    def doc_to_text(doc: Document, text: str) -> str:
        other = reordered(doc)
        return text if other is None else other.text

    def doc_to_choice(doc: Document, template: object = None) -> Sequence[object]:
        choices = original.doc_to_choice(doc, template)
        other = reordered(doc) if template is None else None
        if other is None or not _are_labels(choices, other.labels):
            return choices
        return [choices[place] for place in other.places]

    def doc_to_target(doc: Document, template: object = None) -> object:
        if template is not None:
            return original.doc_to_target(doc, template)
        right = right_choices(original_task(name), original, doc, choices_of(original, doc))
        return right if isinstance(original.doc_to_target(doc), list) else right[0]

    for doc in islice(task.eval_docs, 1):
        choices = choices_of(original, doc)
        options = listed_options(str(original.doc_to_text(doc)), len(choices))
        labels = [option["label"] for option in options]
        if not options or (not _are_labels(choices, labels) and _begin_with_labels(choices, labels)):
            raise UserError(
                f"task.names: {name}: the prompts of {original_task(name)} do not list their options on lines that begin with "
                "A, B, … or 1, 2, …, so that there is no order to change. Take @typos or @distractor."
            )
    _put_otherwise(task, original, doc_to_text)
    task.doc_to_choice, task.doc_to_target = doc_to_choice, doc_to_target  # type: ignore[method-assign]


def _are_labels(choices: Sequence[object], labels: Sequence[str]) -> bool:
    return [str(choice).strip(" ().:") for choice in choices] == list(labels)


def _begin_with_labels(choices: Sequence[str], labels: Sequence[str]) -> bool:
    starts = [choice.lstrip(" (")[:2] for choice in choices]
    return all(start[:1] == label and start[1:] in (".", ")", ":") for start, label in zip(starts, labels, strict=True))


def _ask_of_answers(name: str, task: HarnessTask, original: HarnessTask) -> None:
    """Let a task propose an answer to each question and ask whether it is right or wrong.

    The answer stands where the task itself would score it. Few-shot examples are put likewise.
    """
    delimiter: str = original.get_config("target_delimiter")
    of_examples = _as_examples(original)

    def proposal(doc: Document, template: object) -> tuple[str, bool]:
        """Return a question with a proposed answer, and whether that is right."""
        source = of_examples if template == EXAMPLE else original
        choices, text = choices_of(source, doc), source.doc_to_text(doc)
        chosen, is_right = proposed(str(text), choices, right_choices(original_task(name), source, doc, choices))
        begin, end = (choices[chosen], source.doc_to_target(doc)) if source.multiple_input else (text, choices[chosen])
        begin = maybe_delimit(str(begin), source.doc_to_prefix(doc), delimiter)
        return delimiter.join([begin, str(end)]) + IS_IT_RIGHT, is_right

    def doc_to_text(doc: Document, template: object = None) -> str:
        return proposal(doc, template)[0]

    def doc_to_target(doc: Document, template: object = None) -> int:
        return 0 if proposal(doc, template)[1] else 1

    def doc_to_choice(doc: Document, template: object = None) -> list[str]:
        return JUDGEMENTS

    task.doc_to_text, task.doc_to_target, task.doc_to_choice = doc_to_text, doc_to_target, doc_to_choice  # type: ignore[method-assign]
    task.multiple_input = task.multiple_target = 0
    task.override_metric("acc")
    for key, value in {"process_results": None, "target_delimiter": " ", "gen_prefix": None}.items():
        task.set_config(key=key, value=value)
    for key, value in {**dict.fromkeys(TEMPLATES, EXAMPLE), "target_delimiter": " ", "gen_prefix": None}.items():
        setattr(task.fewshot_cfg, key, value)


def _as_examples(task: HarnessTask) -> HarnessTask:
    """Return a task that reads documents by the templates of its few-shot examples."""
    of_examples = copy.copy(task)
    for key in TEMPLATES:
        setattr(of_examples, key, partial(_read_by, getattr(task, key), getattr(task.fewshot_cfg, key)))
    return of_examples


def _read_by(read: Callable[[Document, object], object], template: object, doc: Document) -> object:
    return read(doc, template)


def proposed(text: str, choices: Sequence[str], right: Sequence[int]) -> tuple[int, bool]:
    """Return which choice of a question is proposed as its answer, and whether it is right.

    A hash of the question and its choices decides both, without a seed: about half of the proposals are right, and a wrong one
    is each wrong choice as often. Where all choices are right, so is the proposal.

    Args:
        text: The question.
        choices: Its choices.
        right: The indices of the right ones.
    """
    number = int.from_bytes(sha256("\n".join([text, *choices]).encode()).digest())
    wrong = [i for i in range(len(choices)) if i not in right]
    is_right = number % 2 == 0 or not wrong
    candidates = list(right) if is_right else wrong
    return candidates[number // 2 % len(candidates)], is_right
