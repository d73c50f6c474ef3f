"""The prompts and right answers of a run's tasks as a text, every token in the context that its task gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.base.memo import Memo
from bitsure.config.schema import TaskSettings
from bitsure.config.text import OF_TASKS
from bitsure.hub.repositories import Origin
from bitsure.models.locate import Source
from bitsure.records.record import cluster_of
from bitsure.scoring.engine import Engine
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.requests import Request, Requests, Scored
from bitsure.scoring.scorer import Scorer
from bitsure.scoring.texts.text_source import BOS_OF_TASKS, TextOfTasks
from bitsure.scoring.texts.token_stream import bytes_of_tokens
from bitsure.scoring.texts.tokenized_text import TextWindow, TokenizedText

if TYPE_CHECKING:
    from bitsure.scoring.hooked_lm import HookedLM
    from bitsure.tasks.harness_tasks import LoadedTasks
    from bitsure.tasks.kinds import Collector, ScoredKind, TaskKind
    from bitsure.tasks.protocols import HarnessTask, Sample

PROMPTS, ANSWERS = "prompts", "answers"


@dataclass(frozen=True)
class TaskPrompts(TextOfTasks):
    """The prompts of a run's questions, each with its first right answer.

    A task's prompts are the text `text/<task>/prompts`, its answers `text/<task>/answers`. Whole texts have neither.

    Attributes:
        scorer: What scores the run's tasks.
    """

    scorer: Scorer
    protocol: ClassVar = OF_TASKS

    @property
    @override
    def origin(self) -> Origin:
        return {"commit": None, "unknown": "the tasks' data stands under data"}

    @override
    def identity(self, source: Source) -> dict[str, object]:
        task = self.scorer.questions.task
        template = {"model": source.fingerprint} if task.chat_template else {}
        questions = {name: self.scorer.kept.questions_key(name) for name in task.names}
        return {"name": OF_TASKS, "sha256": hash_json(questions), **template}

    @override
    def cut(self, source: Source, memo: Memo) -> TokenizedText:
        return memo(cut_questions, self.scorer.load_tasks(memo), source, self.scorer.questions.task)


@dataclass(frozen=True)
class UnscoredRequest(Scored):
    """A request as it would be run, in the place of its log-probabilities."""

    request: Request


class RequestCollector(Engine):
    """Cuts requests to the model's context, as every engine does, and runs none of them."""

    @property
    @override
    def parameters(self) -> int:
        return 0

    @override
    def limits(self) -> Limits:
        return Limits(1, 1)

    @override
    def run(self, requests: Requests, journal: Journal, known: Mapping[int, Scored]) -> Iterator[dict[int, Scored]]:
        yield {i: UnscoredRequest([0.0] * len(request[1]), False, request) for i, request in requests.items()}

    @override
    def broken_layer(self, request: Request) -> str | None:
        return None


def collecting_lm(source: Source, settings: TaskSettings) -> HookedLM:
    """Return a model that collects requests as its tasks' scoring tokenizes them, and runs none; it has no weights."""
    from bitsure.models.load import empty_model
    from bitsure.scoring.hooked_lm import HookedLM

    model, tokenizer = empty_model(source.path, source.settings.trust_remote_code), source.load_tokenizer()
    return HookedLM(model, tokenizer, RequestCollector, lambda n: None, settings.add_bos, settings.score_bos)


def collected_request(lm: HookedLM, strings: tuple[str, ...]) -> Request:
    """Return a request that such a model collected, by the harness's arguments."""
    return cast(UnscoredRequest, lm.scored[strings]).request


def collect_questions(
    loaded: Sequence[LoadedTasks],
    lm: HookedLM,
    settings: TaskSettings,
    wanted: Callable[[HarnessTask], bool],
    collector: Collector,
) -> None:
    """Give a collector the questions of the wanted tasks, whose requests the model collects.

    Args:
        loaded: The tasks, with their data.
        lm: What `collecting_lm` returns.
        settings: How the questions are put.
        wanted: Whether a task is asked.
        collector: Is given each task's questions.
    """
    from bitsure.scoring.harness import ask_questions
    from bitsure.tasks.kinds import kind_of

    for tasks in loaded:
        asked = {name: task for name, task in tasks.tasks.items() if wanted(task)}
        logged = ask_questions(replace(tasks, tasks=asked), lm, settings) if asked else {}
        for name, samples in logged.items():
            kind_of(asked[name]).collect(name, asked[name], samples, collector)


def cut_questions(loaded: Sequence[LoadedTasks], source: Source, settings: TaskSettings) -> TokenizedText:
    """Return a window for each question: its prompt and its first right answer, as its task's scoring tokenizes them.

    The shortest stand first, so that windows of one length are run together. Questions of one cluster, such as those about
    one passage, are one document, whose number is that of its first question.

    Args:
        loaded: The tasks, with their data.
        source: The model.
        settings: How the questions are put.

    Raises:
        UserError: If no task has a prompt, or a request cannot be scored.
    """
    from bitsure.tasks.kinds import kind_of

    lm = collecting_lm(source, settings)
    collector = PromptWindows(lm)
    collect_questions(loaded, lm, settings, lambda task: kind_of(task).has_prompt, collector)
    windows = collector.windows
    if not windows:
        raise UserError(
            f"text=tasks: the tasks {', '.join(settings.names)} are whole texts or written answers, which have none to score. "
            "Leave it out."
        )
    return TokenizedText(tuple(sorted(windows, key=len)), max(map(len, windows)), None, BOS_OF_TASKS)


class PromptWindows:
    """Makes a window of each question: a `bitsure.tasks.kinds.Collector`.

    Args:
        lm: The model, whose engine collected the requests.
    """

    def __init__(self, lm: HookedLM) -> None:
        self._lm = lm
        self.windows: list[TextWindow] = []

    def add_scored(self, kind: ScoredKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Add the windows of a task."""
        from bitsure.tasks.kinds import of_first_filter

        documents = dict[str, int]()
        for sample in of_first_filter(samples):
            question = kind.question(name, task, sample)
            strings = question.requests[question.gold[0]]
            prompt, answer = collected_request(self._lm, strings)
            number = documents.setdefault(cluster_of(sample["doc"], sample["prompt_hash"]), sample["doc_id"])
            n = len(prompt) + len(answer) - 1
            window = TextWindow(
                np.array([*prompt, *answer]),
                1,
                np.full(n, number),
                np.arange(1, n + 1),
                bytes_of_tokens([*prompt, *answer], "".join(strings), self._lm.tokenizer)[1:],
                np.repeat([f"text/{name}/{part}" for part in (PROMPTS, ANSWERS)], [len(prompt) - 1, len(answer)]),
            )
            self.windows.append(window)

    def add_written(self, kind: TaskKind, name: str, task: HarnessTask, samples: Sequence[Sample]) -> None:
        """Add nothing: no right answer is scored."""
