"""Scored questions as requests of token ids, so that other models can be asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitsure.config.schema import TaskSettings
from bitsure.models.locate import Source
from bitsure.records.record import cluster_of
from bitsure.scoring.requests import Request, Requests
from bitsure.scoring.texts.task_prompts import collect_questions, collected_request, collecting_lm

if TYPE_CHECKING:
    from bitsure.scoring.hooked_lm import HookedLM
    from bitsure.tasks.harness_tasks import LoadedTasks
    from bitsure.tasks.kinds import ScoredKind, TaskKind
    from bitsure.tasks.protocols import HarnessTask, Sample


@dataclass(frozen=True)
class AskedQuestion:
    """A question with choices."""

    requests: list[Request]
    """One for each choice: context and continuation, token ids."""
    gold: list[int]
    """Indices of the right choices."""
    task: str = ""
    """Its task."""
    cluster: str = ""
    """Equal for questions that depend on each other, as in records."""
    prompt: str = ""
    """The hash of its prompt."""

    def true_label_prob(self, logprobs: Sequence[float]) -> float:
        """Return the probability of the right choices: the softmax over the choices' summed log-probabilities, nats."""
        weights = np.exp(np.array(logprobs) - max(logprobs))
        return float(weights[self.gold].sum() / weights.sum())


def numbered(questions: Sequence[AskedQuestion]) -> Requests:
    """Return the requests of questions by number, question after question."""
    requests = (request for question in questions for request in question.requests)
    return dict(enumerate(requests))


def ask(loaded: Sequence[LoadedTasks], source: Source, settings: TaskSettings) -> list[AskedQuestion]:
    """Return the questions with choices of tasks, as their scoring tokenizes them.

    Args:
        loaded: The tasks, with their data.
        source: The model.
        settings: How the questions are put.
    """
    from bitsure.tasks.kinds import MultipleChoice

    lm = collecting_lm(source, settings)
    questions = _ChoiceQuestions(lm)
    collect_questions(loaded, lm, settings, lambda task: MultipleChoice.output_type == task.OUTPUT_TYPE, questions)
    return questions.questions


class _ChoiceQuestions:
    """Collects the questions that have choices: a `bitsure.tasks.kinds.Collector`.

    Args:
        lm: The model, whose engine collected the requests.
    """

    def __init__(self, lm: HookedLM) -> None:
        self._lm = lm
        self.questions: list[AskedQuestion] = []

    def add_scored(self, kind: ScoredKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Add the questions of a task."""
        from bitsure.tasks.kinds import of_first_filter

        for sample in of_first_filter(samples):
            question = kind.question(name, task, sample)
            requests = [collected_request(self._lm, strings) for strings in question.requests]
            prompt = sample["prompt_hash"]
            cluster = cluster_of(sample["doc"], prompt)
            self.questions.append(AskedQuestion(requests, question.gold, name, cluster, prompt))

    def add_written(self, kind: TaskKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Add nothing: no choice is scored."""
