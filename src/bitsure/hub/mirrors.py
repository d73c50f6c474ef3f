"""What a mirror holds: `models/<org>/<name>` and `datasets/<org>/<name>`, each a repository's files, and their commits.

`prefetch` fills a mirror and records the commits. For files copied by hand the commit is unknown.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from bitsure.base.errors import UserError
from bitsure.base.files import hash_file, write_text
from bitsure.base.json_files import read_object
from bitsure.base.store import Store, hash_each, locked
from bitsure.config.model import REVISION
from bitsure.hub.repositories import LocalFiles, Origin
from bitsure.results import check

log = logging.getLogger(__name__)

T = TypeVar("T")

MODEL_NOTE = "prefetched.json"  # in a model's folder: revision, commit, and the files with their SHA-256
DATA_NOTE = ".prefetched.json"  # in a data set's folder: each file's commit and SHA-256; hidden from `datasets`
# the files that a model directory is loaded from, and that identify it
MODEL_FILES = ("*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.model", "*.txt", "*.safetensors", "*.bin", "*.py")


@dataclass(frozen=True)
class ModelNote:
    """What is recorded of a model that was fetched."""

    revision: str
    commit: str
    files: dict[str, str]
    """Name → SHA-256."""


@dataclass(frozen=True)
class FileNote:
    """What is recorded of a data set's file that was fetched."""

    commit: str
    sha256: str
    ref: str | None = None
    """The ref that the commit is on, if that is no branch."""


@contextmanager
def lock(mirror: Path, kind: str, repo: str) -> Iterator[None]:
    """Let no other process fill the same repository of the mirror until the block ends; kind: `models` or `datasets`."""
    with locked(mirror / ".locks" / kind / repo, mirror / kind / repo):
        yield


def model_files(path: Path) -> list[Path]:
    """Return the files that a model directory is loaded from, sorted: also weights that its index names in other folders."""
    files = {file for pattern in MODEL_FILES for file in path.glob(pattern) if file.name != MODEL_NOTE}
    return sorted(files | {shard for shard in indexed_shards(path) if shard.is_file()})


def indexed_shards(path: Path) -> list[Path]:
    """Return the weight files that a model directory's index names, sorted; they may be missing, or lie in other folders."""
    if any((path / single).is_file() for single in ("model.safetensors", "pytorch_model.bin")):
        return []  # transformers reads that file and no index
    indices = sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("pytorch_model*.bin.index.json"))
    return sorted(path / name for name in {name for index in indices for name in shards_of(index)})


def shards_of(index: Path) -> set[str]:
    """Return the names of the weight files that an index names.

    Raises:
        UserError: If the index is damaged.
    """
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{index} has no weight_map from tensors to the names of files. Bring the file again.")
    return set(names.values())


def find_model(repo: str, revision: str, mirror: str | None, store: Store | None = None) -> LocalFiles | None:
    """Return a model of the mirror, or None.

    The commit is unknown if the files were copied by hand or have changed since they were fetched.

    Args:
        repo: The repository.
        revision: The wanted revision, or the commit itself.
        mirror: The mirror's directory.
        store: Remembers the hashes of files that have not changed.

    Raises:
        UserError: If the model was fetched at another revision, or its note is damaged.
    """
    path = Path(mirror, "models", repo) if mirror else None
    if path is None or not path.is_dir():
        return None
    if not (path / MODEL_NOTE).is_file():
        if revision != REVISION:
            log.warning("%s was copied by hand: whether it is of revision %s is unknown and not checked", path, revision)
        return LocalFiles(path, None)
    note = _read_note(path / MODEL_NOTE, ModelNote)
    if revision not in (note.revision, note.commit):
        raise UserError(
            f"{path} holds another revision than {revision}: it was fetched at {note.revision}, commit {note.commit}. "
            "Ask for that one; or give another paths.hub_mirror; or move that directory away and run `make prefetch` again."
        )
    if _hashes_of_model(path, store) != note.files:
        log.warning("%s has changed since it was fetched: it is identified by its content, not by its commit", path)
        return LocalFiles(path, None)
    return LocalFiles(path, note.commit)


def published_hashes(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the files of a model that was fetched from the hub, and the SHA-256 that each had there, as far as it is known.

    The mirror's note has them all; in the hub's cache a large file's own name is its SHA-256.
    """
    if (path / MODEL_NOTE).is_file():
        noted = _read_note(path / MODEL_NOTE, ModelNote)
        return tuple((str(path / name), sha256) for name, sha256 in noted.files.items())
    files = [file.resolve() for file in model_files(path)]
    return tuple((str(file), file.name) for file in files if re.fullmatch("[0-9a-f]{64}", file.name))


def note_model(path: Path, revision: str, commit: str) -> None:
    """Record the revision and commit that a model's files, all of them present, were fetched at."""
    note = ModelNote(revision, commit, _hashes_of_model(path))
    write_text(path / MODEL_NOTE, json.dumps(asdict(note), indent=1))


def _hashes_of_model(path: Path, store: Store | None = None) -> dict[str, str]:
    files = model_files(path)
    return dict(zip((file.name for file in files), hash_each(files, store), strict=True))


def note_data(folder: Path, commit: str, files: Mapping[str, Path], ref: str | None = None) -> None:
    """Record the commit of some files of a data set.

    Args:
        folder: The data set's folder in the mirror.
        commit: The commit.
        files: Name in the repository → the file.
        ref: The ref that the commit is on, if that is no branch.
    """
    notes = _data_note(folder) | {name: FileNote(commit, hash_file(path), ref) for name, path in files.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / DATA_NOTE, json.dumps({name: asdict(note) for name, note in notes.items()}, indent=1))


def origin(folder: Path, hashes: Mapping[str, str | None]) -> Origin:
    """Return where files of a data set come from.

    Args:
        folder: The data set's folder in the mirror.
        hashes: File → its SHA-256 now.

    Raises:
        UserError: If the folder's note is damaged.
    """
    notes = _data_note(folder)
    as_fetched = [note for name, content in hashes.items() if (note := notes.get(name)) and note.sha256 == content]
    commits = sorted({note.commit for note in as_fetched})
    if len(as_fetched) == len(hashes) and len(commits) == 1:
        known: Origin = {"commit": commits[0]}
        if ref := as_fetched[0].ref:
            known["ref"] = ref
        known["sha256"] = dict(hashes)
        return known
    if not as_fetched:
        unknown = "put into the mirror by hand"
    elif len(as_fetched) < len(hashes):
        unknown = "some of its files were put into the mirror, or changed there, by hand"
    else:
        unknown = f"its files are of several commits: {', '.join(commits)}"
    return {"commit": None, "unknown": unknown, "sha256": dict(hashes)}


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str | None]:
    """Return the SHA-256 of files in a folder, or by absolute paths; None for one that does not exist."""
    return {name: hash_file(folder / name) if (folder / name).is_file() else None for name in names}


def _data_note(folder: Path) -> dict[str, FileNote]:
    return _read_note(folder / DATA_NOTE, dict[str, FileNote]) if (folder / DATA_NOTE).is_file() else {}


def _read_note(file: Path, kind: type[T]) -> T:
    """Read what was recorded when files were fetched. Raises UserError if it cannot be read or is of another kind."""
    try:
        return check(read_object(file, remedy=""), kind, "its fields")
    except UserError as error:
        raise UserError(
            f"{file} is damaged: {str(error).strip()} It records the commit of the files beside it. Remove it, and they count "
            f"as copied by hand; or move {file.parent} away and run `make prefetch` again."
        ) from error
