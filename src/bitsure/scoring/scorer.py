"""Score a model on tasks: records from the store if it has them, otherwise from the harness, task by task."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, write_text
from bitsure.base.memo import Memo
from bitsure.base.progress import progress
from bitsure.base.resources import measured
from bitsure.base.store import Store
from bitsure.base.work import EntryCost, read_cost, scoring_cost, scoring_work, write_cost
from bitsure.config.schema import VLLM, ScoringSettings
from bitsure.hub.repositories import FILES
from bitsure.models.locate import Source
from bitsure.records.answer_units import answer_units
from bitsure.records.generations import GENERATIONS_SCHEMA, GENERATIONS_TABLE, generations_table, read_generations
from bitsure.records.parquet import PROMPTS_SCHEMA, read_prompts, read_records, write_prompts, write_records
from bitsure.records.record import SCHEMA, by_task, to_table
from bitsure.records.text_units import with_units
from bitsure.results import read, write
from bitsure.results.run_files import QuestionCount, ServedOrigin
from bitsure.scoring.journal import Journal, ResultJournal
from bitsure.scoring.kept_prompts import PROMPTS_FILE, KeptPrompts
from bitsure.scoring.question_source import QuestionSource, hash_of_questions
from bitsure.scoring.scored_model import LocalSetup, ModelSetup, ScoredModel
from bitsure.scoring.task_files import TaskFiles

if TYPE_CHECKING:
    from bitsure.scoring.harness import Evaluated
    from bitsure.scoring.hooked_lm import HookedLM, Journals
    from bitsure.tasks.harness_tasks import LoadedTasks

log = logging.getLogger(__name__)

FORMAT = 6  # of records in the store; one more whenever our code would make other records from the same key
DATA_FILE = "data.json"  # beside a task's records: where its data came from
RECORDS_FILE, GENERATIONS_FILE = "records.parquet", "generations.parquet"  # of choices and texts, and of written answers
ENGINE_FILE = "engine.json"  # beside a task's records: the server, or vLLM in this process, that scored them
COUNTS_FILE = "counts.json"  # beside a task's records: how many questions it has, and how many were asked


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
        self.questions, self.setup, self.store, self.log_file = questions, LocalSetup(scoring, dtype), store, log_file
        self._files = TaskFiles(questions, store)
        self._loaded: dict[str, LoadedTasks] = {}
        self._prompts = KeptPrompts(store)

    def check_prompting(self, source: Source) -> None:
        """Raise UserError if the prompts need a chat template or a BOS token that the model's tokenizer does not have."""
        task = self.questions.task
        if task.chat_template or task.add_bos:
            with terminal.output_to(self.log_file):
                from bitsure.scoring.prompting import check_prompting

                check_prompting(source.load_tokenizer(), task)

    def missing(self, model: ScoredModel, to_read: bool = False) -> list[str]:
        """Return the names of the tasks that the store has no records of; `to_read` is as in `Store.find`."""
        return [name for name in self.questions.task.names if not self._find(model, name, to_read)]

    def load_missing(self, model: ScoredModel, memo: Memo) -> None:
        """Load and check the tasks that the store has no whole records of; the memo has those that other cells loaded.

        Raises:
            UserError: If a task cannot be scored, or the texts that it searches do not fit into the model's context.
        """
        names = self.missing(model, to_read=True)
        self._load_tasks(names, memo)
        if names:
            from bitsure.scoring.searched_texts import check_searched_texts

            with terminal.output_to(self.log_file):
                check_searched_texts({name: self._loaded[name] for name in names}, self.questions.task, model.source)

    def load_tasks(self, memo: Memo) -> list[LoadedTasks]:
        """Return all tasks with their data; the memo has those that other cells loaded."""
        self._load_tasks(self.questions.task.names, memo)
        return [self._loaded[name] for name in self.questions.task.names]

    def questions_key(self, name: str) -> dict[str, object]:
        """Return what identifies a task's questions and their prompts, as far as its data was read before."""
        return self.questions.key(name, self._files.contents(name), self._files.has_written_answers(name))

    @property
    def has_written_answers(self) -> bool:
        """Whether the model writes the answers of any task; also true where that is not known, as before tasks are loaded."""
        return any(self._files.has_written_answers(name) for name in self.questions.task.names)

    def score(self, model: ScoredModel, checkpoint: Callable[[], Path] | None, label: str) -> pa.Table:
        """Return the records of all questions, in the order of the tasks; new ones are kept in the store, task by task.

        Questions whose answers the model writes have none: `generations` returns these answers.

        Args:
            model: The model.
            checkpoint: Returns the directory with its quantized weights, their files hashed; called if something has to be
                scored. None for full precision.
            label: What to call the model beside the progress bar.
        """
        if names := self.missing(model, to_read=True):
            self._load_tasks(names, Memo())
            self._score_tasks(names, model, checkpoint() if checkpoint else None, label)
        parts = [read_records(entry / RECORDS_FILE, may_be_empty=True)[0] for entry in self._entries(model).values()]
        _check_unique([task for part in parts for task in by_task(part)])
        return pa.concat_tables([SCHEMA.empty_table(), *parts])

    def generations(self, model: ScoredModel) -> pa.Table:
        """Return the answers that a scored model wrote, under `bitsure.records.generations.GENERATIONS_SCHEMA`."""
        parts = [read_generations(entry / GENERATIONS_FILE)[0] for entry in self._entries(model).values()]
        return pa.concat_tables([GENERATIONS_SCHEMA.empty_table(), *parts])

    def costs(self, model: ScoredModel) -> dict[str, EntryCost | None]:
        """Return what it cost to score each task when its records were made; None if that is not known."""
        return {name: read_cost(entry) for name, entry in self._entries(model).items()}

    def data(self, model: ScoredModel) -> dict[str, dict[str, Any]]:
        """Return where the data of a scored model's tasks came from: task → repository → origin.

        Files of this machine stand where this run reads them: another directory's run may have scored the same content.
        """
        files = {name: entry / DATA_FILE for name, entry in self._entries(model).items()}
        data = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
        for origins in data.values():
            if FILES in origins:
                hashes = {self._files.place_of(sha, file): sha for file, sha in origins[FILES]["sha256"].items()}
                origins[FILES]["sha256"] = dict(sorted(hashes.items()))
        return data

    def question_counts(self, model: ScoredModel) -> dict[str, QuestionCount]:
        """Return how many questions of each scored task were asked; empty if an earlier version scored one of them."""
        files = [entry / COUNTS_FILE for entry in self._entries(model).values()]
        if not all(file.is_file() for file in files):
            return {}
        return {task: count for file in files for task, count in read(file, dict[str, QuestionCount]).items()}

    def engine(self, model: ScoredModel) -> ServedOrigin | None:
        """Return the server, or vLLM in this process, that scored the first of a model's tasks; None for our own engine."""
        files = [entry / ENGINE_FILE for entry in self._entries(model).values()]
        return next((read(file, ServedOrigin) for file in files if file.is_file()), None)

    def write_prompts(self, model: ScoredModel, path: Path) -> None:
        """Write the prompts of all questions of a scored model into one file."""
        parts = [pq.read_table(entry / "prompts.parquet") for entry in self._entries(model).values()]
        with atomic_path(path) as temporary:
            pq.write_table(pa.concat_tables([PROMPTS_SCHEMA.empty_table(), *parts]), temporary)

    def prompts(self, model: ScoredModel) -> dict[tuple[str, int], str]:
        """Return the prompts of all questions of a scored model, by task and doc_id."""
        parts = [read_prompts(entry / "prompts.parquet") for entry in self._entries(model).values()]
        return {question: prompt for part in parts for question, prompt in part.items()}

    def keys(self, model: ScoredModel) -> dict[str, dict[str, Any]]:
        """Return for each task the key of a model's records in the store: all that made them."""
        return {name: self._key(model, name) for name in self.questions.task.names}

    def _key(self, model: ScoredModel, name: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **model.key,
            "task": name,
            **self.questions_key(name),
            **self._setup(model).key(quantized=model.weights is not None),
        }

    def _setup(self, model: ScoredModel) -> ModelSetup:
        if model.server:
            from bitsure.scoring.served_setup import ServedSetup

            return ServedSetup(model.server)
        if self.setup.scoring.engine == VLLM:
            from bitsure.scoring.vllm_setup import VllmSetup

            return VllmSetup(self.setup.scoring, self.setup.dtype, self.log_file)
        return self.setup

    def _prompts_key(self, model: ScoredModel, name: str) -> dict[str, Any]:
        """Return the key of the hash of a task's prompts: what makes them, which is the same for all quantizers."""
        tokenizer = {"model": model.source.fingerprint} if self.questions.task.chat_template else {}
        libraries = self.setup.key(quantized=False)["libraries"]
        return {"format": FORMAT, **tokenizer, "task": name, **self.questions_key(name), "libraries": libraries}

    def _find(self, model: ScoredModel, name: str, to_read: bool) -> Path | None:
        """Return where the store keeps a task's records; None if it has none, or if they are of other prompts.

        Records whose prompts were never compared with another model's are taken as they are.
        """
        entry = self.store.find("records", self._key(model, name), to_read)
        kept = self._prompts.kept(self._prompts_key(model, name), to_read)
        if entry is None or kept is None:
            return entry
        if to_read or not (entry / PROMPTS_FILE).is_file():  # which earlier versions did not write
            scored = hash_of_questions(_questions_of(entry))
        else:
            scored = json.loads((entry / PROMPTS_FILE).read_text(encoding="utf-8"))
        if scored == kept:
            return entry
        log.warning("the store's records %s are of other prompts than their key names: they are made again", entry)
        return None

    def _entries(self, model: ScoredModel) -> dict[str, Path]:
        """Return where the store keeps each task's records of a model."""
        return {name: self.store.path("records", key) for name, key in self.keys(model).items()}

    def _journals(self, model: ScoredModel, name: str) -> Journals:
        from bitsure.scoring.generation.generation_request import Generation
        from bitsure.scoring.hooked_lm import Journals

        path = self.store.path("unfinished", self._key(model, name))
        return Journals(Journal(path.with_suffix(".jsonl")), ResultJournal(path.with_suffix(".answers.jsonl"), Generation))

    def _load_tasks(self, names: Sequence[str], memo: Memo) -> None:
        if missing := [name for name in names if name not in self._loaded]:
            with terminal.output_to(self.log_file):
                from bitsure.tasks import harness_tasks

                for name in missing:
                    self._loaded |= memo(harness_tasks.load_tasks, self.questions.task, [name], self.questions.hub_mirror)
                    self._files.record(name, self._loaded[name].places, self._loaded[name].has_written_answers)
            _check_unique([task for loaded in self._loaded.values() for task in loaded.tasks])

    def _score_tasks(self, names: Sequence[str], model: ScoredModel, checkpoint: Path | None, label: str) -> None:
        """Score tasks, one after the other; other processes wait for the one that scores, and then find its records."""
        settings = self.questions.task
        with terminal.output_to(self.log_file):
            total = sum(self._loaded[name].count_requests(settings) for name in names)
        lm: HookedLM | None = None
        with (
            progress(f"scoring {label}", total) as advance,
            terminal.output_to(self.log_file),
        ):
            for name in names:
                key = self._key(model, name)
                with self.store.lock("records", key):
                    if self._find(model, name, to_read=True):
                        advance(self._loaded[name].count_requests(settings), note="by another process")
                        self._journals(model, name).remove()
                        continue
                    if lm is None:
                        from bitsure.scoring.hooked_lm import HookedLM

                        setup = self._setup(model)
                        loaded = setup.load(model.source, checkpoint)
                        make_engine = partial(setup.engine, loaded)
                        bos = self.questions.task.add_bos, self.questions.task.score_bos
                        lm = HookedLM(loaded.model, loaded.tokenizer, make_engine, advance, *bos)
                        lm.generator = setup.generator(loaded, lm.tokenizer)
                        for task in names:  # Setting the batches of all now lets a process that resumes make the same.
                            self._journals(model, task).begin(lm)
                    self._score_task(name, model, lm, label)

    def _score_task(self, name: str, model: ScoredModel, lm: HookedLM, label: str) -> None:
        """Score one task and write its records into the store."""
        from bitsure.scoring.harness import evaluate_tasks

        key, journals = self._key(model, name), self._journals(model, name)
        tokens_before, resumed = lm.tokens, journals.n_results
        if resumed:
            log.info("%s, %s: %d choices and answers were scored before", label, name, resumed)
        with measured() as use:
            evaluated = evaluate_tasks(self._loaded[name], lm, self.questions.task, journals)
        records, generations = to_table(evaluated.records), generations_table(evaluated.answers)
        questions = hash_of_questions(with_units(records, answer_units(generations)))
        self._prompts.keep(name, self._prompts_key(model, name), questions)
        self.store.remove("records", key)  # which are of other prompts, or damaged
        with self.store.create("records", key) as entry:
            write_records(entry / RECORDS_FILE, records, key)
            if len(generations):
                GENERATIONS_TABLE.write(entry / GENERATIONS_FILE, generations, key)
            write_text(entry / PROMPTS_FILE, json.dumps(questions))
            write_prompts(entry / "prompts.parquet", evaluated.questions, evaluated.prompts)
            write_text(entry / DATA_FILE, json.dumps(self._loaded[name].data))
            write(entry / COUNTS_FILE, _question_counts(self._loaded[name], evaluated))
            if (origin := lm.engine.origin) is not None:
                write(entry / ENGINE_FILE, origin)
            if not resumed:
                tokens = lm.tokens - tokens_before
                work = scoring_work(lm.engine.parameters, tokens)
                write_cost(entry, scoring_cost(self._setup(model).work, use, work, tokens, len(evaluated.questions)))
        journals.remove()


def _questions_of(entry: Path) -> pa.Table:
    """Return the records of a task, those of written answers with them."""
    generations = read_generations(entry / GENERATIONS_FILE)[0]
    return with_units(read_records(entry / RECORDS_FILE, may_be_empty=len(generations) > 0)[0], answer_units(generations))


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
