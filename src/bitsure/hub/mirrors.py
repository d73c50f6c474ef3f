"""What a mirror holds, and of which commit: `models/<org>/<name>` and `datasets/<org>/<name>`, each a repository's files.

`prefetch.py` fills one and writes down the commits; what was put there by hand is of no known commit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bitsure.base.errors import UserError
from bitsure.base.files import hash_file, write_text
from bitsure.base.store import Store, hash_each, locked
from bitsure.config.model import REVISION

log = logging.getLogger(__name__)

MODEL = "prefetched.json"  # in a model's folder: revision, commit, and the files with their SHA-256
DATA = ".prefetched.json"  # in a data set's: each file's commit and SHA-256; hidden, or `datasets` might take it for data
# what a model directory is loaded from, and so what it is identified by
FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", "*.bin", "*.py")


@dataclass(frozen=True)
class Found:
    """A repository's files on this machine and the commit they are of, where that is known."""

    path: Path
    commit: str | None


@contextmanager
def lock(mirror: Path, kind: str, repo: str) -> Iterator[None]:
    """Keep all others who would fill a repository of the mirror waiting until the block ends; kind: models or datasets."""
    with locked(mirror / ".locks" / kind / repo, mirror / kind / repo):
        yield


def model_files(path: Path) -> list[Path]:
    """What a model directory is loaded from."""
    return sorted(file for pattern in FILES for file in path.glob(pattern) if file.name != MODEL)


def find_model(repo: str, revision: str, mirror: str | None, store: Store | None = None) -> Found | None:
    """A model in the mirror; one that was put there by hand is of no known commit, and so is one that was changed since.

    store: knows the hashes of files that have not changed. Raises UserError for one that was fetched at another revision.
    """
    path = Path(mirror, "models", repo) if mirror else None
    if path is None or not path.is_dir():
        return None
    if not (path / MODEL).is_file():
        if revision != REVISION:
            log.warning("%s was put there by hand: whether it is of revision %s is not known and not checked", path, revision)
        return Found(path, None)
    fetched = _read(path / MODEL, "revision", "commit", "files")
    if revision not in (fetched["revision"], fetched["commit"]):
        raise UserError(
            f"{path} holds another revision than {revision}: it was fetched at {fetched['revision']}, commit "
            f"{fetched['commit']}. Ask for that one; or give another paths.hub_mirror; or move that directory away and run "
            "`make prefetch` again."
        )
    if _contents(path, store) != fetched["files"]:
        log.warning("%s was changed since it was fetched: it is identified by its content, not by its commit", path)
        return Found(path, None)
    return Found(path, fetched["commit"])


def note_model(path: Path, revision: str, commit: str) -> None:
    """Write down what a model's files, all there, were fetched as."""
    write_text(path / MODEL, json.dumps({"revision": revision, "commit": commit, "files": _contents(path)}, indent=1))


def _contents(path: Path, store: Store | None = None) -> dict[str, str]:
    files = model_files(path)
    return dict(zip((file.name for file in files), hash_each(files, store), strict=True))


def note_data(folder: Path, commit: str, files: Mapping[str, Path], ref: str | None = None) -> None:
    """Write down which commit, and which ref if that is no branch, some files of a data set are of.

    files: by their names in the repository.
    """
    of = {"commit": commit} | ({"ref": ref} if ref else {})
    fetched = _fetched(folder) | {name: of | {"sha256": hash_file(path)} for name, path in files.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / DATA, json.dumps(fetched, indent=1))


def origin(folder: Path, hashes: Mapping[str, str]) -> dict:
    """Where files of a data set come from: `commit`, or None and why it is `unknown`; and the files' `sha256` as given.

    `ref` is of the commit, where it is of no branch.
    """
    fetched = _fetched(folder)
    as_fetched = [fetched[name] for name, found in hashes.items() if fetched.get(name, {}).get("sha256") == found]
    commits, unknown = sorted({one["commit"] for one in as_fetched}), None
    if not as_fetched:
        unknown = "put into the mirror by hand"
    elif len(as_fetched) < len(hashes):
        unknown = "some of its files were put into the mirror, or changed there, by hand"
    elif len(commits) > 1:
        unknown = f"its files are of several commits: {', '.join(commits)}"
    one = {"commit": None, "unknown": unknown} if unknown else as_fetched[0]
    said = {key: value for key, value in one.items() if key != "sha256"}
    return said | {"sha256": dict(hashes)}


def hashes(mirror: str, repo: str, names: Iterable[str]) -> dict[str, str | None]:
    """SHA-256 of some files of a data set as they are now; None where one is not there."""
    files = {name: Path(mirror, "datasets", repo, name) for name in names}
    return {name: hash_file(file) if file.is_file() else None for name, file in files.items()}


def _fetched(folder: Path) -> dict[str, dict[str, str]]:
    return _read(folder / DATA) if (folder / DATA).is_file() else {}


def _read(file: Path, *keys: str) -> dict:
    """What was written down of what was fetched. Raises UserError where it cannot be read, or says nothing of the keys."""
    try:
        said = json.loads(file.read_text())
        if not isinstance(said, dict) or not set(keys) <= said.keys():
            raise ValueError(f"it does not say {', '.join(keys) or 'what each file is'}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is damaged: {error}. It says of which commit the files beside it are. Remove it, and they count as put "
            f"there by hand; or move {file.parent} away and run `make prefetch` again."
        ) from error
    return said
