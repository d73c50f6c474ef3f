"""lm-evaluation-harness's evaluation of tasks: records and written answers of what it asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lm_eval.evaluator import evaluate

from bitsure.config.schema import TaskSettings
from bitsure.records.generations import WrittenAnswer
from bitsure.records.record import Record, cluster_of, place_of
from bitsure.scoring.generation.judged_answers import written_answers
from bitsure.scoring.hooked_lm import HookedLM, Journals
from bitsure.scoring.requests import Scored
from bitsure.tasks.few_shots import repeatable_draws, warn_of_repeated_questions
from bitsure.tasks.harness_tasks import LoadedTasks
from bitsure.tasks.kinds import Collector, Question, ScoredKind, TaskKind, kind_of, of_first_filter
from bitsure.tasks.protocols import HarnessTask, Sample

log = logging.getLogger(__name__)


class Evaluated(NamedTuple):
    """What was scored of tasks."""

    records: list[Record]
    """One a question, but for those whose answers are written."""
    prompts: list[str]
    """The prompt of each record's first choice, and then of each question whose answer was written."""
    answers: list[WrittenAnswer]
    """The written answers, sample after sample of each question."""

    @property
    def questions(self) -> list[Record | WrittenAnswer]:
        """The records, and the first sample of each written answer: what `prompts` are of."""
        return [*self.records, *(answer for answer in self.answers if answer.sample == 0)]


def evaluate_tasks(loaded: LoadedTasks, lm: HookedLM, task: TaskSettings, journals: Journals | None = None) -> Evaluated:
    """Evaluate tasks with the harness.

    Args:
        loaded: The tasks, with their data.
        lm: The model.
        task: How the questions are put.
        journals: Have what an interrupted process scored, and receive what is scored now.

    Raises:
        UserError: If the harness's own accuracy of a question, or its log-likelihood of a text, is not the record's; or if no
            metric says whether a written answer is right.
    """
    results = _Results(lm)
    for name, samples in ask_questions(loaded, lm, task, journals).items():
        warn_of_repeated_questions(name, loaded.tasks[name], task.exclude_question)
        kind_of(loaded.tasks[name]).collect(name, loaded.tasks[name], samples, results)
    return Evaluated(results.records, results.prompts + results.answer_prompts, results.answers)


class _Results(Collector):
    """What was scored and written, as records and answers.

    Args:
        lm: The model, with what it scored and wrote.
    """

    def __init__(self, lm: HookedLM) -> None:
        self._lm = lm
        self.records: list[Record] = []
        self.prompts: list[str] = []
        self.answers: list[WrittenAnswer] = []
        self.answer_prompts: list[str] = []

    def add_scored(self, kind: ScoredKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Make the records of a task, and check them against the harness's own numbers."""
        questions = of_first_filter(samples)
        if questions and not kind.has_check(questions[0]):
            log.warning("task %s has no metric acc: our accuracy of it is not checked against the harness's", name)
        for sample in questions:
            record = _record(name, sample, kind.question(name, task, sample), self._lm.scored)
            kind.check_agreement(record, sample)
            self.records.append(record)
            self.prompts.append(kind.prompt(sample))

    def add_written(self, kind: TaskKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Make the written answers of a task."""
        self.answers.extend(written_answers(name, task, samples, self._lm.written))
        self.answer_prompts.extend(map(kind.prompt, of_first_filter(samples)))


def ask_questions(
    loaded: LoadedTasks, lm: HookedLM, task: TaskSettings, journals: Journals | None = None
) -> dict[str, list[Sample]]:
    """Have the harness ask all questions of tasks; what the model answered stands in `lm.scored` and `lm.written`.

    Args:
        loaded: The tasks, with their data.
        lm: The model.
        task: How the questions are put.
        journals: Have what an interrupted process scored, and receive what is scored now.

    Returns:
        Task → what the harness logs of each question, once for each of the task's filters.
    """
    lm.begin(journals, task)
    with repeatable_draws(loaded.tasks.values(), task.seed):
        results = evaluate(
            lm,
            {"tasks": loaded.tasks},
            limit=task.limit,
            bootstrap_iters=0,
            log_samples=True,
            system_instruction=task.system_instruction,
            apply_chat_template=task.chat_template,
            fewshot_as_multiturn=task.chat_template,  # the harness's own default with a template
        )
    samples: dict[str, list[Sample]] = results["samples"]
    return samples


def _record(name: str, sample: Sample, question: Question, scored: Mapping[tuple[str, ...], Scored]) -> Record:
    choices = [scored[request] for request in question.requests]
    length, depth = place_of(sample["doc"])
    return Record(
        task=name,
        doc_id=sample["doc_id"],
        doc_hash=sample["doc_hash"],
        prompt_hash=sample["prompt_hash"],
        target_hash=sample["target_hash"],
        choices=question.choices,
        gold=question.gold,
        choice_logprobs=[choice.logprob for choice in choices],
        choice_tokens=[len(choice.token_logprobs) for choice in choices],
        choice_greedy=[choice.greedy for choice in choices],
        token_logprobs=[choice.token_logprobs for choice in choices],
        cluster=cluster_of(sample["doc"], sample["prompt_hash"]),
        words=question.words,
        bytes=question.bytes,
        length=length,
        depth=depth,
    )
