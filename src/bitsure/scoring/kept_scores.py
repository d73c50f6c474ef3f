"""What the store has of models that were scored on a run's tasks: found by what made it, read, and kept for later runs."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base.files import atomic_path
from bitsure.base.store import Store
from bitsure.base.work import EntryCost
from bitsure.config.schema import VLLM
from bitsure.hub.repositories import FILES
from bitsure.records.generations import GENERATIONS_SCHEMA
from bitsure.records.parquet import PROMPTS_SCHEMA
from bitsure.results.run_files import QuestionCount, ServedOrigin
from bitsure.scoring.journal import Journal, ResultJournal
from bitsure.scoring.kept_prompts import KeptPrompts
from bitsure.scoring.question_source import QuestionSource
from bitsure.scoring.scored_model import LocalSetup, ModelSetup, ScoredModel
from bitsure.scoring.task_entry import ScoredTask, TaskEntry
from bitsure.scoring.task_files import TaskFiles

if TYPE_CHECKING:
    from bitsure.scoring.hooked_lm import Journals

log = logging.getLogger(__name__)

FORMAT = 6  # of records in the store; one more whenever our code would make other records from the same key
KIND, UNFINISHED = "records", "unfinished"  # of the store's entries


class KeptScores:
    """The scores of models on one set of questions, an entry of the store for each task of each model.

    Args:
        questions: The tasks.
        local: How models are run here.
        store: Where entries are kept.
        log_file: Where the output of vLLM goes.
    """

    def __init__(self, questions: QuestionSource, local: LocalSetup, store: Store, log_file: Path) -> None:
        self.questions, self.files = questions, TaskFiles(questions, store)
        self._local, self._store, self._log_file = local, store, log_file
        self._prompts = KeptPrompts(store)

    def questions_key(self, name: str) -> dict[str, object]:
        """Return what identifies a task's questions and their prompts, as far as its data was read before."""
        return self.questions.key(name, self.files.contents(name), self.files.has_written_answers(name))

    def keys(self, model: ScoredModel) -> dict[str, dict[str, Any]]:
        """Return for each task the key of a model's records in the store: all that made them."""
        return {name: self.key(model, name) for name in self.questions.task.names}

    def key(self, model: ScoredModel, name: str) -> dict[str, Any]:
        """Return the key of a model's records of one task."""
        return {
            "format": FORMAT,
            **model.key,
            "task": name,
            **self.questions_key(name),
            **self.setup(model).key(quantized=model.weights is not None),
        }

    def setup(self, model: ScoredModel) -> ModelSetup:
        """Return how a model is loaded and scored: by a server, by vLLM or by our own engine."""
        if model.server:
            from bitsure.scoring.served_setup import ServedSetup

            return ServedSetup(model.server)
        if self._local.scoring.engine == VLLM:
            from bitsure.scoring.vllm_setup import VllmSetup

            return VllmSetup(self._local.scoring, self._local.dtype, self._log_file)
        return self._local

    @property
    def has_written_answers(self) -> bool:
        """Whether the model writes the answers of any task; also true where that is not known, as before tasks are loaded."""
        return any(self.files.has_written_answers(name) for name in self.questions.task.names)

    def missing(self, model: ScoredModel, to_read: bool = False) -> list[str]:
        """Return the names of the tasks that the store has no records of; `to_read` is as in `Store.find`."""
        return [name for name in self.questions.task.names if not self.has(model, name, to_read)]

    def has(self, model: ScoredModel, name: str, to_read: bool) -> bool:
        """Return whether the store has a task's records, and they are not of other prompts.

        Records whose prompts were never compared with another model's are taken as they are.
        """
        folder = self._store.find(KIND, self.key(model, name), to_read)
        kept = self._prompts.kept(self._prompts_key(model, name), to_read)
        if folder is None or kept is None or TaskEntry(folder).questions_hash(of_records=to_read) == kept:
            return folder is not None
        log.warning("the store's records %s are of other prompts than their key names: they are made again", folder)
        return False

    def records(self, model: ScoredModel) -> list[pa.Table]:
        """Return the records of each task; of a task whose answers are written there are none."""
        return [entry.records() for entry in self._entries(model).values()]

    def generations(self, model: ScoredModel) -> pa.Table:
        """Return the answers that a scored model wrote, under `bitsure.records.generations.GENERATIONS_SCHEMA`."""
        parts = [entry.generations() for entry in self._entries(model).values()]
        return pa.concat_tables([GENERATIONS_SCHEMA.empty_table(), *parts])

    def costs(self, model: ScoredModel) -> dict[str, EntryCost | None]:
        """Return what it cost to score each task when its records were made; None if that is not known."""
        return {name: entry.cost() for name, entry in self._entries(model).items()}

    def data(self, model: ScoredModel) -> dict[str, dict[str, Any]]:
        """Return where the data of a scored model's tasks came from: task → repository → origin.

        Files of this machine stand where this run reads them: another directory's run may have scored the same content.
        """
        data = {name: data for name, entry in self._entries(model).items() if (data := entry.data()) is not None}
        for origins in data.values():
            if FILES in origins:
                hashes = {self.files.place_of(sha, file): sha for file, sha in origins[FILES]["sha256"].items()}
                origins[FILES]["sha256"] = dict(sorted(hashes.items()))
        return data

    def question_counts(self, model: ScoredModel) -> dict[str, QuestionCount]:
        """Return how many questions of each scored task were asked; empty if an earlier version scored one of them."""
        counts = dict[str, QuestionCount]()
        for entry in self._entries(model).values():
            of_task = entry.counts()
            if of_task is None:
                return {}
            counts |= of_task
        return counts

    def engine(self, model: ScoredModel) -> ServedOrigin | None:
        """Return the server, or vLLM in this process, that scored the first of a model's tasks; None for our own engine."""
        engines = (entry.engine() for entry in self._entries(model).values())
        return next((engine for engine in engines if engine is not None), None)

    def prompts(self, model: ScoredModel) -> dict[tuple[str, int], str]:
        """Return the prompts of all questions of a scored model, by task and doc_id."""
        return {question: prompt for entry in self._entries(model).values() for question, prompt in entry.prompts().items()}

    def write_prompts(self, model: ScoredModel, path: Path) -> None:
        """Write the prompts of all questions of a scored model into one file."""
        parts = [entry.prompts_table() for entry in self._entries(model).values()]
        with atomic_path(path) as temporary:
            pq.write_table(pa.concat_tables([PROMPTS_SCHEMA.empty_table(), *parts]), temporary)

    def lock(self, model: ScoredModel, name: str) -> AbstractContextManager[None]:
        """Let no other process score the same task of the same model inside the `with` block."""
        return self._store.lock(KIND, self.key(model, name))

    def keep(self, model: ScoredModel, name: str, scored: ScoredTask) -> None:
        """Keep what scoring a task gave.

        Raises:
            UserError: If the task's prompts differ each time that they are made.
        """
        key = self.key(model, name)
        self._prompts.keep(name, self._prompts_key(model, name), scored.questions_hash)
        self._store.remove(KIND, key)  # which are of other prompts, or damaged
        with self._store.create(KIND, key) as folder:
            scored.write(folder, key)

    def journals(self, model: ScoredModel, name: str) -> Journals:
        """Return the journals of a task whose scoring is not finished."""
        from bitsure.scoring.generation.generation_request import Generation
        from bitsure.scoring.hooked_lm import Journals

        path = self._store.path(UNFINISHED, self.key(model, name))
        return Journals(Journal(path.with_suffix(".jsonl")), ResultJournal(path.with_suffix(".answers.jsonl"), Generation))

    def _entries(self, model: ScoredModel) -> dict[str, TaskEntry]:
        """Return what the store keeps of each task that a model was scored on."""
        return {name: TaskEntry(self._store.path(KIND, key)) for name, key in self.keys(model).items()}

    def _prompts_key(self, model: ScoredModel, name: str) -> dict[str, Any]:
        """Return the key of the hash of a task's prompts: what makes them, which is the same for all quantizers."""
        tokenizer = {"model": model.source.fingerprint} if self.questions.task.chat_template else {}
        libraries = self._local.key(quantized=False)["libraries"]
        return {"format": FORMAT, **tokenizer, "task": name, **self.questions_key(name), "libraries": libraries}
