"""Score a model on a text: rows from the store if it has them, otherwise batch by batch, each kept as soon as it is done."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bitsure.base import terminal
from bitsure.base.files import atomic_path
from bitsure.base.memo import Memo
from bitsure.base.progress import progress
from bitsure.base.resources import measured
from bitsure.base.store import Store
from bitsure.base.versions import installed_version
from bitsure.base.work import EntryCost, read_cost, scoring_work, write_cost
from bitsure.models.facts import vocabulary_size
from bitsure.models.locate import Source
from bitsure.models.size import parameters_of
from bitsure.records.text_tokens import TEXT_SCHEMA, TEXTS_TABLE
from bitsure.results import read, write
from bitsure.results.run_files import TextOrigin
from bitsure.scoring.scored_model import LocalSetup, ScoredModel
from bitsure.scoring.texts.baseline_states import BaselineStates
from bitsure.scoring.texts.text_source import TextSource
from bitsure.scoring.texts.tokenized_text import TextWindow, TokenizedText

if TYPE_CHECKING:
    from bitsure.scoring.texts.token_scores import TokenScores

log = logging.getLogger(__name__)

FORMAT = 2  # of a text's rows in the store; one more whenever our code would make other rows from the same key
KIND = "texts"  # of the store's entries
FILE, ORIGIN_FILE = "texts.parquet", "origin.json"
LIBRARIES = ("torch", "transformers", "tokenizers")


class TextScorer:
    """Scores models on one text.

    Args:
        text: The text.
        setup: How models are loaded.
        source: The full-precision model, whose tokenizer and context the windows follow.
        store: Where rows are kept.
        log_file: Where the output of libraries goes.
    """

    def __init__(self, text: TextSource, setup: LocalSetup, source: Source, store: Store, log_file: Path) -> None:
        self.text, self.setup, self.source, self.store, self.log_file = text, setup, source, store, log_file
        self._tokenized: TokenizedText | None = None

    def cut(self, memo: Memo) -> TokenizedText:
        """Return the text's windows, as `TextSource.cut` does."""
        if self._tokenized is None:
            with terminal.output_to(self.log_file):
                self._tokenized = self.text.cut(self.source, memo)
        return self._tokenized

    def origin(self, model: ScoredModel) -> TextOrigin:
        """Return what was scored of a scored model and how, for provenance.json."""
        stored = read(self.store.path(KIND, self.key(model)) / ORIGIN_FILE, TextOrigin)
        return stored.model_copy(update={"origin": dict(self.text.origin)})  # this run's file, of the same content

    def key(self, model: ScoredModel) -> dict[str, Any]:
        """Return the key of a model's rows in the store: all that made them."""
        quantized = model.weights is not None
        return {
            "format": FORMAT,
            **model.key,
            "text": self.text.identity(self.source),
            "dtype": self.setup.dtype,
            "packed_kernels": quantized and not self.setup.scoring.dequantize,
            "libraries": {library: installed_version(library) for library in (*LIBRARIES, *self.text.libraries)},
        }

    def made_from(self, model: ScoredModel, tokens: pa.Table) -> dict[str, Any]:
        """Return what a model's rows were made from, and the size of its vocabulary, for the metadata of a run's file.

        Args:
            model: The model.
            tokens: Its rows.
        """
        made_from = {**self.key(model), "vocabulary": vocabulary_size(self.source.path)}
        return dict.fromkeys(tokens["task"].unique().to_pylist(), made_from)

    def missing(self, model: ScoredModel, to_read: bool = False) -> bool:
        """Return whether the store has no rows of a model; `to_read` is as in `Store.find`."""
        return self.store.find(KIND, self.key(model), to_read) is None

    def cost(self, model: ScoredModel) -> EntryCost | None:
        """Return what it cost to score a model; None if that is not known."""
        return read_cost(self.store.path(KIND, self.key(model)))

    def score(self, model: ScoredModel, checkpoint: Callable[[], Path] | None, label: str) -> pa.Table:
        """Return the rows of all scored tokens; new ones are kept in the store.

        Args:
            model: The model.
            checkpoint: Returns the directory with its quantized weights, their files hashed; called if something has to be
                scored. None for full precision.
            label: What to call the model beside the progress bar.
        """
        if self.missing(model):
            self.cut(Memo())  # the files that tasks read when they are loaded are a part of the key
        key = self.key(model)
        with self.store.lock(KIND, key):
            if self.missing(model, to_read=True):
                self._score(model, checkpoint() if checkpoint else None, label)
        return TEXTS_TABLE.read(self.store.path(KIND, key) / FILE)[0]

    def _score(self, model: ScoredModel, checkpoint: Path | None, label: str) -> None:
        from bitsure.scoring.texts.text_pass import TextModel

        key, cut = self.key(model), self.cut(Memo())
        windows = cut.windows
        parts = _Parts(self.store.path("unfinished", key))
        resumed, full = parts.windows, None
        key_of_full = self.key(ScoredModel(self.source))
        baseline = BaselineStates(self.setup, self.source, self.store, self.log_file, key_of_full)
        if model.weights is not None:
            full = baseline.full_model(windows, resumed)
        with (
            progress(f"scoring {label} on {self.text.task}", len(windows), "windows") as advance,
            terminal.output_to(self.log_file),
            measured() as use,
        ):
            loaded = self.setup.load(model.source, checkpoint)
            text_model = TextModel(loaded.model, loaded.rounding)
            advance(resumed)
            keeps_states = full is None and not resumed and self.text.keeps_states
            with baseline.writer(text_model, windows) if keeps_states else nullcontext() as keep:
                while parts.windows < len(windows):
                    batch = text_model.next_batch(windows[parts.windows :])
                    states = text_model.states(batch)
                    if keep is not None:
                        keep.write(states)
                    parts.add(self._rows(batch, parts.windows, text_model.score(batch, states, full)))
                    advance(len(batch))
        tokens = sum(len(window) - 1 for window in windows)
        rows = parts.table()
        self.store.remove(KIND, key)  # which is damaged
        with self.store.create(KIND, key) as entry:
            TEXTS_TABLE.write(entry / FILE, rows, dict.fromkeys(rows["task"].unique().to_pylist(), key))
            write(entry / ORIGIN_FILE, self.text.describe(self.source, cut))
            if not resumed:
                work = scoring_work(parameters_of(loaded.model), tokens)
                memory = use.peak_memory_bytes, use.peak_gpu_memory_bytes
                write_cost(entry, EntryCost("scoring", use.seconds, work, *memory, tokens))
        parts.remove()

    def _rows(self, batch: Sequence[TextWindow], first: int, scores: TokenScores) -> pa.Table:
        """Return the rows of a batch, whose first window has the number `first`."""
        n = len(scores)
        tasks = [np.full(len(window.scored), self.text.task) if window.tasks is None else window.tasks for window in batch]
        columns = {
            "task": np.concatenate(tasks),
            "document": np.concatenate([window.documents for window in batch]),
            "position": np.concatenate([window.positions for window in batch]),
            "window": np.repeat(np.arange(first, first + len(batch)), [len(window.scored) for window in batch]),
            "token": np.concatenate([window.scored for window in batch]),
            "logprob": scores.logprob,
            "top_token": scores.top_token,
            "top_prob": np.exp(scores.top_logprob),
            "bytes": np.concatenate([window.n_bytes for window in batch]),
            "kl_divergence": pa.nulls(n) if scores.kl_divergence is None else scores.kl_divergence,
        }
        return pa.table(columns).cast(TEXT_SCHEMA)


class _Parts:
    """The rows of the batches that are done, each in a file of its own, so that a killed process loses one batch at most.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: list[pa.Table] = []
        self.windows = 0
        """How many windows are done."""
        while (file := self._file).is_file():
            try:
                self._append(pq.read_table(file).cast(TEXT_SCHEMA))
            except (pa.ArrowException, OSError, ValueError) as error:
                log.warning("%s is damaged (%s): its windows are scored again", file, error)
                return

    @property
    def _file(self) -> Path:
        """The file of the next batch, which its first window's number names."""
        return self._folder / f"{self.windows}.parquet"

    def add(self, rows: pa.Table) -> None:
        """Add a batch."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._file) as temporary:
            pq.write_table(rows, temporary)
        self._append(rows)

    def _append(self, rows: pa.Table) -> None:
        self._tables.append(rows)
        self.windows = rows["window"][-1].as_py() + 1

    def table(self) -> pa.Table:
        """Return all rows."""
        return pa.concat_tables(self._tables)

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)
