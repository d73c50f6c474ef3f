"""The worked examples before a question: drawn anew for each evaluation, and never the question itself."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.tasks.protocols import Document, HarnessTask, Sampler

log = logging.getLogger(__name__)

WITHOUT_EXAMPLES = "loglikelihood_rolling"  # whole texts, before which nothing stands
HARNESS_SEEDS = (0, 1234)  # of Python's and numpy's generators, as the harness's command line sets them


@contextmanager
def repeatable_draws(tasks: Iterable[HarnessTask] = (), seed: int = 0) -> Iterator[None]:
    """Within the block, whatever is drawn at random by tasks is the same as in every other such block.

    The harness seeds the drawing of examples once, when it loads a task, and tasks that are Python code draw from the
    generators that all share. Without this the second model of a run would see other prompts than the first.

    Args:
        tasks: The tasks that are evaluated; none while tasks are loaded.
        seed: Seeds the drawing of examples.
    """
    states = random.getstate(), np.random.get_state()
    random.seed(HARNESS_SEEDS[0])
    np.random.seed(HARNESS_SEEDS[1])
    for harness_task in tasks:
        harness_task.set_fewshot_seed(seed=seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


class ExampleSampler:
    """Draws examples as the harness's sampler of a task does, and notices the question itself among them.

    Where the question is not among the examples, they are the harness's own.

    Args:
        name: The task's name.
        task: The task, whose sampler this one stands for.
        exclude_question: Put another example in the place of the question itself; otherwise such questions are only counted.
    """

    def __init__(self, name: str, task: HarnessTask, exclude_question: bool) -> None:
        self.questions = 0
        """Questions that examples were drawn for since the sampler was seeded."""
        self.repeated = 0
        """How many of these the harness shows among their own examples."""
        self.warned = False
        """Whether a warning has said so: a run asks the same questions of several models."""
        self._name, self._task, self._exclude, self._seed = name, task, exclude_question, 0
        self._harness: Sampler = task.sampler
        self._settings = task.fewshot_cfg
        # The harness says which question examples are drawn for, and leaves out documents equal to it, only where examples
        # come from the test split by name. Naming that split, after the examples were read, makes it always say so.
        self._harness_excludes = self._settings.split == task.config.test_split
        self._settings.split = task.config.test_split
        self._identities: dict[int, object] = {}  # of examples, by their place in memory

    def set_rnd(self, rnd: int) -> ExampleSampler:
        """Seed the drawing, and forget what was counted."""
        self._harness.set_rnd(rnd)
        self._seed, self.questions, self.repeated = rnd, 0, 0
        return self

    def sample(self, n: int, eval_doc: Document) -> list[Document]:
        """Return `n` examples for a question.

        Raises:
            UserError: If there are fewer examples, or the harness cannot write the answer of one.
        """
        question = _identity(self._task, eval_doc)
        examples = self._draw(n, eval_doc)
        others = [example for example in examples if not self._is_question(example, eval_doc, question)]
        self.questions += 1
        self.repeated += len(others) < len(examples)
        if self._exclude and len(others) < len(examples):
            examples = others + self._replacements(n - len(others), others, eval_doc, question)
        for example in examples:
            self._check_answer(example)
        return examples

    def _draw(self, n: int, eval_doc: Document) -> list[Document]:
        try:
            return list(self._harness.sample(n, eval_doc=eval_doc if self._harness_excludes else None))
        except (AssertionError, ValueError) as error:
            available = self._available(eval_doc)
            if n <= available:
                raise
            raise self._too_few(n, available) from error

    def _available(self, eval_doc: Document) -> int:
        """Return how many examples a question can have."""
        pool = self._harness.fewshot_docs()
        if self._exclude:
            question = _identity(self._task, eval_doc)
            usable = sum(not self._is_question(example, eval_doc, question) for example in pool)
        else:
            usable = sum(example != eval_doc for example in pool) if self._harness_excludes else len(pool)
        return min(usable, len(pool) - 1) if self._harness_excludes else usable  # it draws one more than it needs

    def _replacements(self, n: int, kept: Sequence[Document], eval_doc: Document, question: object) -> list[Document]:
        """Return `n` examples that are neither kept already nor the question.

        They are drawn apart from the others, so that all other prompts stay those of the harness.
        """
        from lm_eval.api.samplers import FirstNSampler

        pool = list(self._harness.fewshot_docs())
        if not isinstance(self._harness, FirstNSampler):  # whose examples keep their order
            random.Random(f"{self._seed} {question}").shuffle(pool)
        taken = {id(example) for example in kept}
        free = (example for example in pool if id(example) not in taken)
        others = list(islice((example for example in free if not self._is_question(example, eval_doc, question)), n))
        if len(others) < n:
            raise self._too_few(len(kept) + n, len(kept) + len(others))
        return others

    def _is_question(self, example: Document, eval_doc: Document, question: object) -> bool:
        if id(example) not in self._identities:
            self._identities[id(example)] = _identity(self._task, example, self._settings)
        return example == eval_doc or self._identities[id(example)] == question

    def _check_answer(self, example: Document) -> None:
        """Raise UserError if the harness, which writes one text as an example's answer, cannot write it."""
        settings, task = self._settings, self._task
        choices = task.doc_to_choice(example, settings.doc_to_choice) if settings.doc_to_choice else None
        target = task.doc_to_target(example, settings.doc_to_target)
        answer = target[0] if isinstance(target, list) and target else target
        by_index = isinstance(target, int) and choices is not None and not task.multiple_input
        if not by_index and not isinstance(answer, str | None):
            raise UserError(
                f"task.num_fewshot: {self._name} has examples whose answer is {target!r}; the harness writes a text, or one "
                "index among the choices, as an example's answer, and no list of indices. Score the task with "
                "task.num_fewshot=0, or give the examples' answers as texts by fewshot_config.doc_to_target in the task's YAML."
            )

    def _too_few(self, n: int, available: int) -> UserError:
        return UserError(
            f"task.num_fewshot={n}: {self._name} has only {available} documents that can stand as examples before a question"
            f"{' other than itself' if self._exclude else ''}. Give at most {available}, or name a split with more of them as "
            "fewshot_split in the task's YAML."
        )


def _identity(task: HarnessTask, doc: Document, settings: Any = None) -> object:
    """Return what two documents have in common exactly if they ask the same question.

    Args:
        task: The task.
        doc: The document.
        settings: How the task writes examples, for an example; None for a question.
    """
    templates = settings or task.config
    choices = task.doc_to_choice(doc, templates.doc_to_choice) if templates.doc_to_choice else None
    target = task.doc_to_target(doc, templates.doc_to_target)
    if choices is None:
        return task.doc_to_text(doc, templates.doc_to_text), str(target)
    text = target if task.multiple_input else task.doc_to_text(doc, templates.doc_to_text)  # what all choices have in common
    return text, sorted(map(str, choices))


def prepare_few_shots(name: str, harness_task: HarnessTask, task: TaskSettings) -> None:
    """Set how many examples stand before a question, as the harness's command line does, and how they are drawn.

    A task that fixes 0 keeps it; whole texts have none.
    """
    own = harness_task.get_config("num_fewshot")
    if harness_task.OUTPUT_TYPE == WITHOUT_EXAMPLES:
        harness_task.set_config(key="num_fewshot", value=0)
    elif task.num_fewshot is not None and own != 0:
        harness_task.set_config(key="num_fewshot", value=task.num_fewshot)
    elif own is None:
        harness_task.set_config(key="num_fewshot", value=0)
    if harness_task.get_config("num_fewshot") and hasattr(harness_task, "sampler"):
        harness_task.sampler = ExampleSampler(name, harness_task, task.exclude_question)
    harness_task.set_fewshot_seed(seed=task.seed)


def warn_of_repeated_questions(name: str, harness_task: HarnessTask, exclude_question: bool) -> None:
    """Warn once with the number of questions that the harness shows among their own examples."""
    sampler = getattr(harness_task, "sampler", None)
    if isinstance(sampler, ExampleSampler) and sampler.repeated and not sampler.warned:
        sampler.warned = True
        log.warning(
            "task %s: the harness's few-shot examples contain the question itself in %d of %d prompts; %s",
            name,
            sampler.repeated,
            sampler.questions,
            "another example stands there (task.exclude_question=false keeps it, as the harness does)"
            if exclude_question
            else "it is kept, with its answer (task.exclude_question=true puts another example there)",
        )
