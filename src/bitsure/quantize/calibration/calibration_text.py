"""The text that a quantizer learns from, by kind: files, the tasks' training splits, or random tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.base.store import Store, hash_each, hash_files
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.paths import project_path
from bitsure.config.schema import TaskSettings
from bitsure.hub.repositories import Origin, local_origin
from bitsure.hub.repository_files import dataset_file, file_origin
from bitsure.quantize.calibration.documents import find_files, read_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POCKET_TEXT = project_path("pocket/text/calibration.txt")


@dataclass(frozen=True)
class CalibText(ABC):
    """Where token ids are drawn from, and the names that identify it."""

    name: str
    """The configuration's name, or what replaces it."""
    place: str
    """Where the text is, for error messages."""
    fingerprint: str
    """SHA-256 of the content."""

    @property
    def origin(self) -> Origin | None:
        """Where files came from, for provenance.json; None for text that is in no file."""
        return None

    @abstractmethod
    def token_ids(self, needed: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
        """Return `needed` token ids or some more, or all there are, in an order drawn by the seed."""


@dataclass(frozen=True)
class TextFiles(CalibText):
    """Files of text, read when windows are drawn."""

    files: tuple[Path, ...]
    document_start: str | None
    """A regular expression for the first line or row of a document; None: each is a document."""
    files_origin: Origin

    @property
    def origin(self) -> Origin:
        """Where the files came from."""
        return self.files_origin

    def token_ids(self, needed: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
        """Return tokens of the shuffled documents."""
        documents = [document for file in self.files for document in read_documents(file, self.document_start)]
        return _document_ids(documents, needed, seed, tokenizer)


@dataclass(frozen=True)
class TrainingSplits(CalibText):
    """Questions of the tasks' training splits with their answers."""

    documents: tuple[str, ...]

    def token_ids(self, needed: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
        """Return tokens of the shuffled questions."""
        return _document_ids(self.documents, needed, seed, tokenizer)


@dataclass(frozen=True)
class RandomTokens(CalibText):
    """No text at all: tokens drawn uniformly."""

    def token_ids(self, needed: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
        """Return ids drawn uniformly from the ordinary ones: no end, padding or other special token."""
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(tokenizer.all_special_ids)
        ordinary = sorted(set(tokenizer.get_vocab().values()) - special)
        ids: list[int] = np.random.default_rng(seed).choice(ordinary, size=needed).tolist()
        return ids


def stands_in(text: CalibText, calib: CalibSettings) -> bool:
    """Return whether the embedded text stands in for one that is unavailable."""
    return calib.path is None and text.place == str(POCKET_TEXT)


def locate_text(
    calib: CalibSettings, hub_mirror: str | None, task: TaskSettings | None = None, store: Store | None = None
) -> CalibText:
    """Find the text before anything heavy is loaded.

    Args:
        calib: Which text.
        hub_mirror: The directory of a mirror of the hub.
        task: What is scored, for `calib.kind=task`.
        store: Knows the hashes of files that have not changed.

    Raises:
        UserError: If the text is not available.
    """
    return KINDS[calib.kind](calib, hub_mirror, task, store)


def _locate_files(calib: CalibSettings, hub_mirror: str | None, task: TaskSettings | None, store: Store | None) -> TextFiles:
    name, start = calib.name, calib.document_start
    try:
        path = _path(calib, hub_mirror)
    except UserError as error:
        if calib.if_missing != "pocket":
            raise error.followed_by("\nOr another text: calib=text calib.path=FILE, or calib=pocket.") from error
        name, path, start = f"pocket ({calib.name} is unavailable)", POCKET_TEXT, None
    files = find_files(path)
    hashes = hash_each(files, store)
    content = hash_files(files, store) if path.is_dir() else hashes[0]
    origin = local_origin(dict(zip(files, hashes, strict=True)))
    if calib.repo is not None and calib.file is not None and path != POCKET_TEXT:
        origin = file_origin(calib.repo, calib.file, path, content, hub_mirror)
    fingerprint = content if start is None else hash_json([content, start])
    return TextFiles(name, str(path), fingerprint, files, start, origin)


def _path(calib: CalibSettings, hub_mirror: str | None) -> Path:
    if calib.path is not None:
        return Path(calib.path)
    assert calib.repo is not None and calib.file is not None, "CalibSettings checks that a text has a place"
    return dataset_file(calib.repo, calib.file, hub_mirror)


def _locate_training_splits(
    calib: CalibSettings, hub_mirror: str | None, task: TaskSettings | None, store: Store | None
) -> TrainingSplits:
    from bitsure.tasks.training_texts import training_texts

    assert task is not None, "calib.kind=task needs the tasks that are scored"
    documents, names = training_texts(task, hub_mirror), ", ".join(task.names)
    place = f"the training split of {names}"
    return TrainingSplits(f"{calib.name} ({names})", place, hash_json(documents), tuple(documents))


def _locate_nothing(
    calib: CalibSettings, hub_mirror: str | None, task: TaskSettings | None, store: Store | None
) -> RandomTokens:
    return RandomTokens(calib.name, "the tokenizer", hash_json("uniform over the ordinary tokens"))


KINDS: dict[str, Callable[[CalibSettings, str | None, TaskSettings | None, Store | None], CalibText]] = {
    "text": _locate_files,
    "task": _locate_training_splits,
    "random": _locate_nothing,
}
"""`calib.kind` → what finds such a text."""


def _document_ids(documents: Sequence[str], needed: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of shuffled documents, each followed by the end token."""
    order = np.random.default_rng(seed).permutation(len(documents))
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids: list[int] = []
    for start in range(0, len(order), 1_000):
        batch = [documents[i] for i in order[start : start + 1_000]]
        for tokens in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            ids += [*tokens, *end] if tokens else []  # Empty documents would make windows of end tokens alone.
        if len(ids) >= needed:
            break
    return ids
