"""The store's entry of a task that a model was scored on: its files, as they are written and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base.files import write_text
from bitsure.base.work import EntryCost, read_cost, write_cost
from bitsure.records.answer_units import answer_units
from bitsure.records.generations import GENERATIONS_TABLE, WrittenAnswer, read_generations
from bitsure.records.parquet import read_prompts, read_records, write_prompts, write_records
from bitsure.records.record import Record
from bitsure.records.text_units import with_units
from bitsure.results import read, write
from bitsure.results.run_files import QuestionCount, ServedOrigin
from bitsure.scoring.kept_prompts import PROMPTS_FILE
from bitsure.scoring.question_source import hash_of_questions

RECORDS, GENERATIONS, PROMPTS = "records.parquet", "generations.parquet", "prompts.parquet"
DATA = "data.json"
ENGINE = "engine.json"
COUNTS = "counts.json"


@dataclass(frozen=True)
class ScoredTask:
    """What scoring a task gave."""

    records: pa.Table
    """One row a question, but for those whose answers are written."""
    generations: pa.Table
    """The written answers."""
    questions: Sequence[Record | WrittenAnswer]
    """All questions, in the order of their prompts."""
    prompts: Sequence[str]
    data: dict[str, Any]
    """Where the task's data came from: repository → origin."""
    counts: dict[str, QuestionCount]
    """How many questions the task, or each member of a group, has, and how many were asked."""
    engine: ServedOrigin | None
    """The server, or vLLM in this process, that scored it; None for our own engine."""
    cost: EntryCost | None
    """None if an earlier process scored a part."""

    @property
    def questions_hash(self) -> str:
        """The hash of the questions and their prompts."""
        return _questions_hash(self.records, self.generations)

    def write(self, folder: Path, key: dict[str, Any]) -> None:
        """Write all of it into the folder of its entry, whose key is kept in the tables."""
        write_records(folder / RECORDS, self.records, key)
        if len(self.generations):
            GENERATIONS_TABLE.write(folder / GENERATIONS, self.generations, key)
        write_text(folder / PROMPTS_FILE, json.dumps(self.questions_hash))
        write_prompts(folder / PROMPTS, self.questions, self.prompts)
        write_text(folder / DATA, json.dumps(self.data))
        write(folder / COUNTS, self.counts)
        if self.engine is not None:
            write(folder / ENGINE, self.engine)
        if self.cost is not None:
            write_cost(folder, self.cost)


@dataclass(frozen=True)
class TaskEntry:
    """Reads the entry of a scored task; earlier versions wrote fewer of its files."""

    folder: Path

    def records(self) -> pa.Table:
        """Return the records; of a task whose answers are written there are none."""
        return read_records(self.folder / RECORDS, may_be_empty=True)[0]

    def generations(self) -> pa.Table:
        """Return the written answers."""
        return read_generations(self.folder / GENERATIONS)[0]

    def questions_hash(self, of_records: bool) -> str:
        """Return the hash of the questions and their prompts.

        Args:
            of_records: Whether it is made from the records themselves, and not taken as it was written beside them.

        Raises:
            UserError: If it is made from records, and they are damaged.
        """
        file = self.folder / PROMPTS_FILE
        if not of_records and file.is_file():
            return str(json.loads(file.read_text(encoding="utf-8")))
        generations = self.generations()
        records = read_records(self.folder / RECORDS, may_be_empty=len(generations) > 0)[0]
        return _questions_hash(records, generations)

    def prompts_table(self) -> pa.Table:
        """Return the prompts, a row a question."""
        return pq.read_table(self.folder / PROMPTS)

    def prompts(self) -> dict[tuple[str, int], str]:
        """Return the prompts by task and doc_id."""
        return read_prompts(self.folder / PROMPTS)

    def data(self) -> dict[str, Any] | None:
        """Return where the task's data came from: repository → origin. None if that is not known."""
        file = self.folder / DATA
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def counts(self) -> dict[str, QuestionCount] | None:
        """Return how many questions were asked, and how many there are. None if that is not known."""
        file = self.folder / COUNTS
        return read(file, dict[str, QuestionCount]) if file.is_file() else None

    def engine(self) -> ServedOrigin | None:
        """Return the server, or vLLM in this process, that scored it; None for our own engine."""
        file = self.folder / ENGINE
        return read(file, ServedOrigin) if file.is_file() else None

    def cost(self) -> EntryCost | None:
        """Return what scoring it cost; None if that is not known."""
        return read_cost(self.folder)


def _questions_hash(records: pa.Table, generations: pa.Table) -> str:
    return hash_of_questions(with_units(records, answer_units(generations)))
