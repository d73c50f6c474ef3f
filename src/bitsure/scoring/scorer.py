"""Score a model on tasks: records from the store if it has them, otherwise from the harness, task by task."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.progress import progress
from bitsure.base.resources import measured
from bitsure.base.store import Store
from bitsure.base.work import scoring_cost, scoring_work
from bitsure.config.schema import ScoringSettings
from bitsure.models.locate import Source
from bitsure.records.generations import generations_table
from bitsure.records.record import SCHEMA, by_task, to_table
from bitsure.results.run_files import QuestionCount
from bitsure.scoring.kept_scores import KeptScores
from bitsure.scoring.question_source import QuestionSource
from bitsure.scoring.scored_model import LocalSetup, ScoredModel
from bitsure.scoring.task_entry import ScoredTask

if TYPE_CHECKING:
    from bitsure.scoring.harness import Evaluated
    from bitsure.scoring.hooked_lm import HookedLM
    from bitsure.tasks.harness_tasks import LoadedTasks

log = logging.getLogger(__name__)


class Scorer:
    """Scores models on one set of questions.

    The harness and its tasks are loaded once, and only if records are missing in the store.

    Args:
        questions: The tasks.
        scoring: How the model is run.
        dtype: The computing type, such as float32.
        store: Where records are kept.
        log_file: Where the output of libraries goes.
    """

    def __init__(self, questions: QuestionSource, scoring: ScoringSettings, dtype: str, store: Store, log_file: Path) -> None:
        self.questions, self.setup, self.log_file = questions, LocalSetup(scoring, dtype), log_file
        self.kept = KeptScores(questions, self.setup, store, log_file)
        self._loaded: dict[str, LoadedTasks] = {}

    def check_prompting(self, source: Source) -> None:
        """Raise UserError if the prompts need a chat template or a BOS token that the model's tokenizer does not have."""
        task = self.questions.task
        if task.chat_template or task.add_bos:
            with terminal.output_to(self.log_file):
                from bitsure.scoring.prompting import check_prompting

                check_prompting(source.load_tokenizer(), task)

    def load_missing(self, model: ScoredModel, memo: Memo) -> None:
        """Load and check the tasks that the store has no whole records of; the memo has those that other cells loaded.

        Raises:
            UserError: If a task cannot be scored, or the texts that it searches do not fit into the model's context.
        """
        names = self.kept.missing(model, to_read=True)
        self._load_tasks(names, memo)
        if names:
            from bitsure.scoring.searched_texts import check_searched_texts

            with terminal.output_to(self.log_file):
                check_searched_texts({name: self._loaded[name] for name in names}, self.questions.task, model.source)

    def load_tasks(self, memo: Memo) -> list[LoadedTasks]:
        """Return all tasks with their data; the memo has those that other cells loaded."""
        self._load_tasks(self.questions.task.names, memo)
        return [self._loaded[name] for name in self.questions.task.names]

    def score(self, model: ScoredModel, checkpoint: Callable[[], Path] | None, label: str) -> pa.Table:
        """Return the records of all questions, in the order of the tasks; new ones are kept in the store, task by task.

        Questions whose answers the model writes have none: `kept.generations` returns these answers.

        Args:
            model: The model.
            checkpoint: Returns the directory with its quantized weights, their files hashed; called if something has to be
                scored. None for full precision.
            label: What to call the model beside the progress bar.
        """
        if names := self.kept.missing(model, to_read=True):
            self._load_tasks(names, Memo())
            self._score_tasks(names, model, checkpoint() if checkpoint else None, label)
        parts = self.kept.records(model)
        _check_unique([task for part in parts for task in by_task(part)])
        return pa.concat_tables([SCHEMA.empty_table(), *parts])

    def _load_tasks(self, names: Sequence[str], memo: Memo) -> None:
        if missing := [name for name in names if name not in self._loaded]:
            with terminal.output_to(self.log_file):
                from bitsure.tasks import harness_tasks

                for name in missing:
                    self._loaded |= memo(harness_tasks.load_tasks, self.questions.task, [name], self.questions.hub_mirror)
                    self.kept.files.record(name, self._loaded[name].places, self._loaded[name].has_written_answers)
            _check_unique([task for loaded in self._loaded.values() for task in loaded.tasks])

    def _score_tasks(self, names: Sequence[str], model: ScoredModel, checkpoint: Path | None, label: str) -> None:
        """Score tasks, one after the other; other processes wait for the one that scores, and then find its records."""
        settings = self.questions.task
        with terminal.output_to(self.log_file):
            total = sum(self._loaded[name].count_requests(settings) for name in names)
        lm: HookedLM | None = None
        unit = " and ".join(sorted({"answers" if self._loaded[name].has_written_answers else "choices" for name in names}))
        with progress(f"scoring {label}", total, unit) as advance, terminal.output_to(self.log_file), ExitStack() as stack:
            for name in names:
                with self.kept.lock(model, name):
                    if self.kept.has(model, name, to_read=True):
                        advance(self._loaded[name].count_requests(settings), note="by another process")
                        self.kept.journals(model, name).remove()
                        continue
                    if lm is None:
                        lm = self._load_model(model, checkpoint, advance, stack)
                        for task in names:  # Setting the batches of all now lets a process that resumes make the same.
                            self.kept.journals(model, task).begin(lm)
                    self._score_task(name, model, lm, label)

    def _load_model(
        self, model: ScoredModel, checkpoint: Path | None, advance: Callable[[int], None], stack: ExitStack
    ) -> HookedLM:
        from bitsure.scoring.hooked_lm import HookedLM

        setup, task = self.kept.setup(model), self.questions.task
        loaded = setup.load(model.source, checkpoint, stack)
        make_engine = partial(setup.engine, loaded)
        lm = HookedLM(loaded.model, loaded.tokenizer, make_engine, advance, task.add_bos, task.score_bos)
        lm.generator = setup.generator(loaded, lm.tokenizer)
        return lm

    def _score_task(self, name: str, model: ScoredModel, lm: HookedLM, label: str) -> None:
        """Score one task and keep its records."""
        from bitsure.scoring.harness import evaluate_tasks

        journals = self.kept.journals(model, name)
        tokens_before, resumed = lm.tokens, journals.n_results
        if resumed:
            log.info("%s, %s: %d choices and answers were scored before", label, name, resumed)
        with measured() as use:
            evaluated = evaluate_tasks(self._loaded[name], lm, self.questions.task, journals)
        cost = None
        if not resumed:
            tokens = lm.tokens - tokens_before
            work = scoring_work(lm.engine.parameters, tokens)
            cost = scoring_cost(self.kept.setup(model).work, use, work, tokens, len(evaluated.questions))
        scored = ScoredTask(
            to_table(evaluated.records),
            generations_table(evaluated.answers),
            evaluated.questions,
            evaluated.prompts,
            self._loaded[name].data,
            _question_counts(self._loaded[name], evaluated),
            lm.engine.origin,
            cost,
        )
        self.kept.keep(model, name, scored)
        journals.remove()


def _question_counts(loaded: LoadedTasks, evaluated: Evaluated) -> dict[str, QuestionCount]:
    asked = Counter(question.task for question in evaluated.questions)
    return {name: QuestionCount(asked=asked[name], available=len(task.eval_docs)) for name, task in loaded.tasks.items()}


def _check_unique(tasks: Sequence[str]) -> None:
    """Raise UserError if a task is named and also a member of a group: its questions would count twice."""
    twice = sorted({name for name in tasks if tasks.count(name) > 1})
    if twice:
        raise UserError(
            f"task.names: {', '.join(twice)} would be scored twice, by name and as a member of a group. Leave one out."
        )
