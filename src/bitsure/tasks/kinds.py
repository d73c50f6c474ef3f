"""The kinds of tasks that are scored: how each makes requests and records of its documents.

A kind is one class, found by the harness's `output_type`. Adding a kind adds a class here, in KINDS.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from bitsure.records.record import Record
from bitsure.tasks.gold import choices_of, is_truthfulqa_mc2, read_lists_of_texts, right_choices
from bitsure.tasks.protocols import Document, HarnessTask, Sample

RELATIVE_TOLERANCE = 1e-6  # of numbers that the harness computes from the same log-likelihoods
PER_LENGTH = ("word_perplexity", "byte_perplexity")  # the harness's pairs of a text's log-likelihood and its length


@dataclass(frozen=True)
class Question:
    """What is scored of one document."""

    choices: list[str]
    """The choices without the delimiter before them; of a continuation or a whole text, that alone."""
    gold: list[int]
    """Indices of the right choices."""
    requests: list[tuple[str, ...]]
    """The harness's arguments for each choice: (context, continuation), or (text,)."""
    words: int | None = None
    """Words of a whole text, as its task counts them."""
    bytes: int | None = None
    """Bytes of a whole text, as its task counts them."""


class Collector(Protocol):
    """Takes what the harness logged of tasks: each kind calls the method that its tasks need."""

    def add_scored(self, kind: ScoredKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Take the questions of a task whose choices, continuations or texts were scored.

        Args:
            kind: The task's kind.
            name: The task's name.
            task: The task.
            samples: What the harness logged, each question once for each of the task's filters.
        """

    def add_written(self, kind: TaskKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Take the questions of a task whose answers the model wrote; arguments are as in `add_scored`."""


class TaskKind(ABC):
    """How the documents of one kind of task are scored."""

    output_type: ClassVar[str]
    """The harness's name for the kind."""
    has_prompt: ClassVar[bool] = True
    """Whether something is scored that a prompt stands before."""

    @abstractmethod
    def collect(self, name: str, task: HarnessTask, samples: Sequence[Sample], collector: Collector) -> None:
        """Give a collector what the harness logged of a task; arguments are as in `Collector`."""

    def prompt(self, sample: Sample) -> str:
        """Return what stands before the first choice."""
        return str(sample["arguments"][0][0])

    def n_requests(self, task: HarnessTask, doc: Document, settings: TaskSettings) -> int:
        """Return how many choices, continuations or texts are scored of a document."""
        return 1

    def texts(self, task: HarnessTask, doc: Document) -> list[str]:
        """Return the texts that the model reads of a document, without examples before it."""
        return [str(task.doc_to_text(doc))]

    def check_readable(self, name: str, task: HarnessTask, doc: Document) -> None:
        """Read what will be scored of a document, so that an error in it is raised now."""
        task.doc_to_target(doc)

    def prepare(self, name: str, task: HarnessTask) -> None:  # noqa: B027 - most kinds need nothing
        """Change what the harness would not read of a task that was loaded."""

    def answered_text(self, name: str, task: HarnessTask, doc: Document) -> str:
        """Return a prompt with its first right choice, its continuation, or the whole text."""
        return "".join(_requests(task, doc).args[:2])


class ScoredKind(TaskKind):
    """A kind of which given choices, continuations or texts are scored."""

    @override
    def collect(self, name: str, task: HarnessTask, samples: Sequence[Sample], collector: Collector) -> None:
        collector.add_scored(self, name, task, samples)

    @abstractmethod
    def question(self, name: str, task: HarnessTask, sample: Sample) -> Question:
        """Return what was scored of a document.

        Raises:
            UserError: If the document's choices, or the right one, cannot be read.
        """

    @abstractmethod
    def check_agreement(self, record: Record, sample: Sample) -> None:
        """Raise UserError if a number that the harness computed for a question differs from the one that its record gives."""

    def has_check(self, sample: Sample) -> bool:
        """Return whether the harness computed a number that `check_agreement` compares."""
        return "acc" in sample


class MultipleChoice(ScoredKind):
    """Questions with choices; each choice is scored."""

    output_type = "multiple_choice"

    @override
    def question(self, name: str, task: HarnessTask, sample: Sample) -> Question:
        choices = choices_of(task, sample["doc"])
        requests = sample["arguments"][: len(choices)]  # tasks with acc_mutual_info make more requests after these
        gold = right_choices(name, task, sample["doc"], choices)
        if len(choices) < 2 or len(choices) != len(requests):
            raise UserError(
                f"task {name}, question {sample['doc_id']}: {len(choices)} choices and {len(requests)} scored; "
                "a confidence needs two or more."
            )
        return Question(choices, gold, [tuple(arguments[:2]) for arguments in requests])

    @override
    def check_agreement(self, record: Record, sample: Sample) -> None:
        if "acc" not in sample:
            return
        best = max(range(len(record.choices)), key=record.choice_logprobs.__getitem__)
        if is_truthfulqa_mc2(record.task):  # its `acc` is the probability of the right choices
            weights = [math.exp(logprob - record.choice_logprobs[best]) for logprob in record.choice_logprobs]
            _check_accuracy(record, sample, sum(weights[g] for g in record.gold) / sum(weights), RELATIVE_TOLERANCE)
        else:
            _check_accuracy(record, sample, float(best in record.gold))

    @override
    def prepare(self, name: str, task: HarnessTask) -> None:
        if not task.multiple_input:
            read_lists_of_texts(name, task)

    @override
    def n_requests(self, task: HarnessTask, doc: Document, settings: TaskSettings) -> int:
        return len(task.doc_to_choice(doc))

    @override
    def texts(self, task: HarnessTask, doc: Document) -> list[str]:
        return [str(task.doc_to_text(doc)), *choices_of(task, doc)]

    @override
    def check_readable(self, name: str, task: HarnessTask, doc: Document) -> None:
        right_choices(name, task, doc, choices_of(task, doc))

    @override
    def answered_text(self, name: str, task: HarnessTask, doc: Document) -> str:
        requests = _requests(task, doc)
        right = right_choices(name, task, doc, choices_of(task, doc))[0]
        return "".join(requests[right].args[:2])


class Continuation(ScoredKind):
    """Prompts with one right continuation, which is scored."""

    output_type = "loglikelihood"

    @override
    def question(self, name: str, task: HarnessTask, sample: Sample) -> Question:
        arguments = sample["arguments"]
        return Question([arguments[0][-1].removeprefix(" ")], [0], [tuple(request[:2]) for request in arguments])

    @override
    def check_agreement(self, record: Record, sample: Sample) -> None:
        if "acc" in sample:
            _check_accuracy(record, sample, float(record.choice_greedy[0]))


class WholeText(ScoredKind):
    """Whole texts, every token of which is scored."""

    output_type = "loglikelihood_rolling"
    has_prompt = False

    @override
    def question(self, name: str, task: HarnessTask, sample: Sample) -> Question:
        arguments = sample["arguments"]
        text = arguments[0][-1].removeprefix(" ")
        # A task may count words and bytes of another form of the text: wikitext does, before its spaces are changed.
        words, n_bytes = (sample[metric][1] if metric in sample else None for metric in PER_LENGTH)
        requests = [tuple(request[:1]) for request in arguments]
        return Question([text], [0], requests, words or len(text.split()), n_bytes or len(text.encode()))

    @override
    def check_agreement(self, record: Record, sample: Sample) -> None:
        ours = record.choice_logprobs[0]
        theirs = [sample[metric][0] for metric in PER_LENGTH if metric in sample]
        if any(abs(logprob - ours) > RELATIVE_TOLERANCE * abs(logprob) for logprob in theirs):
            raise UserError(
                f"task {record.task}, text {record.doc_id}: the harness's log-likelihood is {theirs}, the records' {ours}. "
                "One of the two reads the task wrongly; no number of it is reported."
            )

    @override
    def has_check(self, sample: Sample) -> bool:
        return True

    @override
    def prompt(self, sample: Sample) -> str:
        return ""


class FreeText(TaskKind):
    """Prompts whose answers the model writes, and the harness judges."""

    output_type = "generate_until"
    has_prompt = False

    @override
    def collect(self, name: str, task: HarnessTask, samples: Sequence[Sample], collector: Collector) -> None:
        collector.add_written(self, name, task, samples)

    @override
    def n_requests(self, task: HarnessTask, doc: Document, settings: TaskSettings) -> int:
        return int(task.get_config("repeats") or 1) + settings.samples + 2 * settings.p_true

    @override
    def answered_text(self, name: str, task: HarnessTask, doc: Document) -> str:
        target = task.doc_to_target(doc)
        first = target[0] if isinstance(target, list) and target else target
        return f"{_requests(task, doc).args[0]}{task.get_config('target_delimiter') or ''}{first}"


KINDS: dict[str, TaskKind] = {kind.output_type: kind for kind in (MultipleChoice(), Continuation(), WholeText(), FreeText())}


def kind_of(task: HarnessTask) -> TaskKind:
    """Return how a task that was loaded is scored."""
    return KINDS[task.OUTPUT_TYPE]


def of_first_filter(samples: Sequence[Sample]) -> list[Sample]:
    """Return each question once: each of a task's filters has them all, and changes nothing but answers that are written."""
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]


def _requests(task: HarnessTask, doc: Document) -> Any:
    """Return the request for a document without examples before it, or the list of one for each choice."""
    context = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    return task.construct_requests(doc, context)


def _check_accuracy(record: Record, sample: Sample, ours: float, tolerance: float = 0.0) -> None:
    if abs(ours - float(sample["acc"])) > tolerance:
        raise UserError(
            f"task {record.task}, question {record.doc_id}: the harness's acc is {sample['acc']}, the records' {ours}. "
            "One of the two reads the task wrongly; no number of it is reported."
        )
