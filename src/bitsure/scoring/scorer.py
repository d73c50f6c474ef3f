"""Score a model on tasks: records from the store where it has them, else from the harness, task by task."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as read_version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, hash_json, write_text
from bitsure.base.memo import Memo
from bitsure.base.resources import measured
from bitsure.base.store import Store, hash_files
from bitsure.base.work import parameters_of, read_cost, scoring_cost, scoring_work, write_cost
from bitsure.config.schema import ScoringSettings, TaskSettings
from bitsure.models import source as models
from bitsure.models.source import Source
from bitsure.records.parquet import read_records, write_prompts, write_records
from bitsure.records.record import by_task
from bitsure.results.costs import ScoringCosts
from bitsure.scoring.scoring_costs import total_costs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bitsure.quantize.inference.hooks import InferenceRounding
    from bitsure.scoring.journal import Journal
    from bitsure.tasks.harness_tasks import LoadedTasks

log = logging.getLogger(__name__)

FORMAT = 5  # of what the store keeps; one more whenever code of ours would make other records from the same causes
version = cache(read_version)  # a file is read for each
DATA = "data.json"  # beside a task's records: where its data came from
LIBRARIES = ("lm_eval", "datasets", "torch", "transformers", "tokenizers")


@dataclass(frozen=True)
class Questions:
    """What is asked, and of which data."""

    task: TaskSettings
    hub_mirror: str | None
    own: str | None  # hash of one's own task files
    fingerprint: str  # of these and of the mirror's listing


def questions(task: TaskSettings, hub_mirror: str | None) -> Questions:
    """Identify the tasks' data without the harness, so that what the store has is found in no time."""
    own = sorted(f for f in Path(task.include_path).rglob("*") if f.is_file()) if task.include_path else []
    mirrored = sorted(f for f in Path(hub_mirror, "datasets").rglob("*") if f.is_file()) if hub_mirror else []
    listing = [(str(f.relative_to(hub_mirror)), f.stat().st_size, f.stat().st_mtime_ns) for f in mirrored]
    of_own = hash_files(own)
    return Questions(task, hub_mirror, of_own if task.include_path else None, hash_json([of_own, listing]))


class Scorer:
    """Scores models on one set of questions; the harness and its tasks are loaded once, and only if something is missing."""

    def __init__(self, questions: Questions, scoring: ScoringSettings, dtype: str, store: Store, log_file: Path):
        self.questions, self.scoring, self.dtype, self.store, self.log_file = questions, scoring, dtype, store, log_file
        self._loaded: dict[str, LoadedTasks] = {}

    def load_missing(self, model: dict, memo: Memo) -> None:
        """Load the harness's tasks that the store has no records of for a model (as `identity` names it), checking them.

        memo: knows the tasks that were loaded for other cells.
        """
        self._load_tasks(self.missing(model), memo)

    def check_prompting(self, source: Source) -> None:
        """Raise UserError if the model's tokenizer has not what the prompts need: a chat template, a BOS token."""
        task = self.questions.task
        if task.chat_template or task.add_bos:
            with terminal.output_to(self.log_file):
                from bitsure.scoring import harness

                harness.check_prompting(source.load_tokenizer(), task)

    def score(self, source: Source, weights: dict | None, checkpoint: Path | None, label: str) -> pa.Table:
        """Every question's record, in the order of the tasks; what is scored now goes to the store task by task.

        weights: what made the quantized weights in `checkpoint`; both None for full precision. `label` is for the reader.
        """
        model = identity(source, weights)
        if missing := self.missing(model, to_read=True):
            self._load_tasks(missing, Memo())
            self._score(source, checkpoint, model, missing, label)
        parts = [read_records(entry / "records.parquet")[0] for entry in self._entries(source, weights).values()]
        _check_once([sub_task for part in parts for sub_task in by_task(part)])
        return pa.concat_tables(parts)

    def missing(self, model: dict, to_read: bool = False) -> list[str]:
        """The tasks that the store has no records of for a model; to_read: as in `Store.find`."""
        names = self.questions.task.names
        return [name for name in names if not self.store.find("records", self._made_from(model, name), to_read)]

    def costs(self, source: Source, weights: dict | None) -> ScoringCosts | None:
        """Return what it cost to score a model when its records were made; None where that is not known."""
        return total_costs({name: read_cost(entry) for name, entry in self._entries(source, weights).items()})

    def data(self, source: Source, weights: dict | None) -> dict[str, dict]:
        """Where the data of a scored model's tasks came from: {task: {repository: as `mirrors.origin` says it}}."""
        files = {name: entry / DATA for name, entry in self._entries(source, weights).items()}
        return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}

    def write_prompts(self, source: Source, path: Path) -> None:
        """What every question of a scored full-precision model was, into one file."""
        parts = [pq.read_table(entry / "prompts.parquet") for entry in self._entries(source, None).values()]
        with atomic_path(path) as temporary:
            pq.write_table(pa.concat_tables(parts), temporary)

    def _entries(self, source: Source, weights: dict | None) -> dict[str, Path]:
        """Where the store keeps each task's records of a model."""
        made_from = {name: self._made_from(identity(source, weights), name) for name in self.questions.task.names}
        return {name: self.store.path("records", one) for name, one in made_from.items()}

    def _load_tasks(self, names: list[str], memo: Memo) -> None:
        if missing := [name for name in names if name not in self._loaded]:
            with terminal.output_to(self.log_file):
                from bitsure.tasks import harness_tasks

                for name in missing:
                    self._loaded |= memo(harness_tasks.load_tasks, self.questions.task, [name], self.questions.hub_mirror)
            _check_once([sub_task for loaded in self._loaded.values() for sub_task in loaded.tasks])

    def _score(self, source: Source, checkpoint: Path | None, model: dict, names: list[str], label: str) -> None:
        from bitsure.scoring import harness

        task, lm = self.questions.task, None
        with terminal.output_to(self.log_file):
            total = sum(self._loaded[name].count_requests(task.limit) for name in names)
        with terminal.progress(f"scoring {source.name}, {label}", total) as advance, terminal.output_to(self.log_file):
            for name in names:
                made_from = self._made_from(model, name)
                with self.store.lock("records", made_from):
                    if self.store.find("records", made_from, to_read=True):
                        advance(self._loaded[name].count_requests(task.limit), note="by another process")
                        self._journal(model, name).remove()
                        continue
                    if lm is None:
                        network, tokenizer, rounding = self._load(source, checkpoint)
                        lm = harness.HookedLM(network, tokenizer, advance, self.scoring.share, task.add_bos, rounding)
                        for one in names:  # the batches of all are settled now: who goes on after a kill makes the same
                            self._journal(model, one).begin(lm.limits())
                    lm.journal = self._journal(model, name)
                    tokens, before = lm.tokens, len(lm.journal)
                    if before:
                        log.info("%s, %s: %d choices were scored before", label, name, before)
                    with measured() as use:
                        found, prompts = harness.run(self._loaded[name], lm, task)
                    with self.store.create("records", made_from) as unfinished:
                        write_records(unfinished / "records.parquet", found, made_from)
                        write_prompts(unfinished / "prompts.parquet", found, prompts)
                        write_text(unfinished / DATA, json.dumps(self._loaded[name].data))
                        if not before:
                            work = scoring_work(parameters_of(lm.model), lm.tokens - tokens)
                            write_cost(unfinished, scoring_cost(use, work, lm.tokens - tokens, len(found)))
                    lm.journal.remove()

    def _journal(self, model: dict, name: str) -> Journal:
        from bitsure.scoring.journal import Journal

        return Journal(self.store.path("unfinished", self._made_from(model, name)).with_suffix(".jsonl"))

    def _load(
        self, source: Source, checkpoint: Path | None
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, InferenceRounding | None]:
        """Load the model and its tokenizer, and the hooks that round its activations, keys and values."""
        if checkpoint is not None and not self.scoring.dequantize:
            from bitsure.quantize.libraries import gptqmodel

            log.info("the quantized weights stay packed, for gptqmodel's kernels")
            return gptqmodel.load_packed(checkpoint, self.dtype), source.load_tokenizer(), None
        network, tokenizer = models.load(source.path, self.dtype, settings=source.settings)
        rounding = None
        if checkpoint is not None:
            from bitsure.quantize.checkpoint import storage as checkpoints

            rounding = checkpoints.put_into(network, checkpoint)
            log.info("the quantized weights are unpacked into ordinary layers of %s", self.dtype)
        return network, tokenizer, rounding

    def describe(self, source: Source, weights: dict | None) -> dict:
        """What made a run's records, for their file's metadata."""
        return {task: self._made_from(identity(source, weights), task) for task in self.questions.task.names}

    @property
    def asked(self) -> dict:
        """How the questions are put; null is the task's, or the tokenizer's, own way."""
        chosen = ("num_fewshot", "limit", "seed", "chat_template", "system_instruction", "add_bos")
        return {name: getattr(self.questions.task, name) for name in chosen}

    def _made_from(self, model: dict, name: str) -> dict:
        return {
            "format": FORMAT,
            **model,
            "task": name,
            "data": self.questions.fingerprint,
            **self.asked,
            "dtype": self.dtype,
            "share": self.scoring.share,
            "packed_kernels": model["weights"] is not None and not self.scoring.dequantize,
            "libraries": {library: version(library) for library in LIBRARIES},
        }


def _check_once(sub_tasks: list[str]) -> None:
    """Raise UserError where a task is asked for by name and as a member of a group: its questions would count twice."""
    twice = sorted({name for name in sub_tasks if sub_tasks.count(name) > 1})
    if twice:
        raise UserError(
            f"task.names: {', '.join(twice)} would be scored twice, by name and as a member of a group. Leave one out."
        )


def identity(source: Source, weights: dict | None) -> dict:
    """What names a model, quantized or not, in the key of its records; `weights` is what its weights were made from."""
    return {"model": source.fingerprint, "weights": weights}
