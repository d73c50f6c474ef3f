"""The content-addressed store: quantized weights and records, found again by what made them.

An entry is a directory `<kind>/<key>` with the files and a `manifest.json` that holds their SHA-256 and what made them. It
is built under a temporary name and renamed into place, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

UNFINISHED = ".unfinished-"


def hash_json(value: object) -> str:
    """SHA-256 of the canonical JSON of a value, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files, in the order given."""
    return hash_json([(path.name, hash_file(path)) for path in paths])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.rename(path)


class Store:
    """`root/<kind>/<key>/`, where the key is the hash of `made_from`: a JSON value that names every cause of the content."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def path(self, kind: str, made_from: object) -> Path:
        return self.root / kind / hash_json(made_from)[:24]

    def find(self, kind: str, made_from: object) -> Path | None:
        """The entry's directory if it is there and its files are as they were written; a damaged one is removed."""
        path = self.path(kind, made_from)
        if not path.is_dir():
            return None
        if damage := _damage(path):
            log.warning("the store's entry %s is damaged (%s): it is made again", path, damage)
            shutil.rmtree(path)
            return None
        return path

    @contextmanager
    def create(self, kind: str, made_from: object) -> Iterator[Path]:
        """An empty directory to fill; it becomes the entry when the block ends without an exception."""
        final = self.path(kind, made_from)
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(final.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{socket.gethostname()}-{os.getpid()}-", dir=final.parent))
        try:
            yield temporary
            hashes = {str(f.relative_to(temporary)): hash_file(f) for f in sorted(temporary.rglob("*")) if f.is_file()}
            manifest = {"made_from": made_from, "sha256": hashes}
            write_text(temporary / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
            try:
                temporary.rename(final)
            except OSError:  # another process made the same entry meanwhile: its content is the same
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_left_behind(folder: Path) -> None:
    """Remove what processes of this machine that are no more left unfinished."""
    for path in folder.glob(f"{UNFINISHED}{socket.gethostname()}-*"):
        pid = int(path.name.rsplit("-", 2)[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:
            pass  # another user's process


def _damage(path: Path) -> str | None:
    try:
        hashes = json.loads((path / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError) as error:
        return f"its manifest cannot be read: {error}"
    for name, expected in hashes.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if hash_file(path / name) != expected:
            return f"{name} is not what was written"
    return None
