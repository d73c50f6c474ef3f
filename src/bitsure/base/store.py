"""The content-addressed store: quantized weights and records, found again by what made them.

An entry is a directory `<kind>/<key>` with the files and a `manifest.json` that holds their sizes, times, SHA-256 and what made
them. It is built under a temporary name and renamed into place, so that it is there whole or not at all. Who makes an entry
holds its lock, a file in `locks/`; others that want the same wait.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from bitsure.base.errors import DiskError, UserError
from bitsure.base.files import ANOTHER_PLACE, as_on_disk, disk_errors, hash_file, hash_json, write_text
from bitsure.base.hashing import hash_all

log = logging.getLogger(__name__)

VERSION = 1  # of the layout below; a store of a later one is refused
PATIENCE = 1.0  # seconds of waiting for a lock that are not worth a word
UNFINISHED = ".unfinished-"


def hash_each(paths: Sequence[Path], store: Store | None = None) -> list[str]:
    """Return the SHA-256 of each file's content; a store remembers those of files that have not changed."""
    return store.hashes(paths) if store else hash_all(paths)


def hash_files(paths: Sequence[Path], store: Store | None = None) -> str:
    """Return the SHA-256 of the names and contents of files, in the order given."""
    return hash_json([(path.name, content) for path, content in zip(paths, hash_each(paths, store), strict=True)])


@contextmanager
def locked(path: Path, what: object, on_wait: Callable[[float], None] = lambda seconds: None) -> Iterator[None]:
    """Let other processes that lock the same file wait until the block ends.

    Args:
        path: The file.
        what: What is named in the log while this process waits.
        on_wait: Called with the seconds that this process has waited since the last call, while it waits.

    Raises:
        DiskError: If the file cannot be written.
    """
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # file systems of the kernel's own refuse a folder with this
            raise DiskError(f"{path.parent} cannot be made there. Choose another place: {ANOTHER_PLACE}.") from error
        lock = filelock.FileLock(path)
        _acquire(lock, what, on_wait)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: filelock.BaseFileLock, what: object, on_wait: Callable[[float], None]) -> None:
    logged = False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=PATIENCE)
        except filelock.Timeout:
            on_wait(PATIENCE)
            if not logged:
                log.warning("waiting for another process that makes %s", what)
            logged = True


class Store:
    """`root/<kind>/<key>/`, where the key is the hash of `made_from`: a JSON value that names every cause of the content.

    Args:
        root: The directory; it is made when something is written.
        on_wait: Called with seconds while this process waits for another one that makes an entry.

    Raises:
        UserError: If a newer version wrote the store, or `root` is no directory that may be read.
    """

    def __init__(self, root: str | Path, on_wait: Callable[[float], None] = lambda seconds: None) -> None:
        self.root = Path(root)
        self._on_wait = on_wait
        with disk_errors(self.root):
            version = self._version()
        if version > VERSION:
            raise UserError(
                f"The store {self.root} was written by a newer bitsure (its layout is {version}, this one knows {VERSION}). "
                "Update bitsure, or give another place: paths.store=DIR."
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    def path(self, kind: str, made_from: object) -> Path:
        """Return where an entry is, or would be."""
        return self.root / kind / hash_json(made_from)[:24]

    def find(self, kind: str, made_from: object, to_read: bool = False) -> Path | None:
        """Return the entry's directory; None if there is no such entry, or its files are damaged.

        Args:
            kind: The kind of entry, such as `weights`.
            made_from: What names every cause of the content.
            to_read: Hash every file, for callers that load the content. Otherwise a file is hashed only if its size or time
                has changed.
        """
        path = self.path(kind, made_from)
        if not path.is_dir():
            return None
        if damage := _damage(path, to_read):
            log.warning("the store's entry %s is damaged (%s): it is made again", path, damage)
            return None
        return path

    @contextmanager
    def lock(self, kind: str, made_from: object) -> Iterator[None]:
        """Keep all others who lock the same entry waiting until the block ends, on every machine that shares the disk.

        The lock is the kernel's, on an open file (flock): it goes with its owner, however that ends. Where a file system
        does not carry such locks from machine to machine, two of them may make the same entry twice, which costs time only.
        Where there is no flock at all, filelock makes soft locks, which can outlive their owner.
        """
        with locked(self.root / "locks" / kind / hash_json(made_from)[:24], self.path(kind, made_from), self._on_wait):
            yield

    def ensure(self, kind: str, made_from: object, fill: Callable[[Path], None], to_read: bool = False) -> Path:
        """Return the entry's directory, and fill it first if there is none.

        Args:
            kind: The kind of entry, such as `weights`.
            made_from: What names every cause of the content.
            fill: Writes the content into the directory that it is given; one process at a time does so.
            to_read: As in `find`.
        """
        if entry := self.find(kind, made_from, to_read):
            return entry
        with self.lock(kind, made_from):
            if not self.find(kind, made_from, to_read):  # not made by another process meanwhile
                with self.create(kind, made_from) as unfinished:
                    fill(unfinished)
        return self.path(kind, made_from)

    @contextmanager
    def create(self, kind: str, made_from: object) -> Iterator[Path]:
        """Yield an empty directory to fill; it becomes the entry when the block ends without an exception.

        Raises:
            DiskError: If the disk is full, or the store cannot be written.
        """
        with disk_errors(self.path(kind, made_from)), self._unfinished(kind, made_from) as temporary:
            yield temporary

    @contextmanager
    def _unfinished(self, kind: str, made_from: object) -> Iterator[Path]:
        final = self.path(kind, made_from)
        final.parent.mkdir(parents=True, exist_ok=True)
        if not (self.root / "version").exists():
            write_text(self.root / "version", f"{VERSION}\n")
        self._remove_left_behind(final.parent)
        temporary = final.parent / f"{UNFINISHED}{uuid.uuid4().hex}-{socket.gethostname()}"
        alive = self._alive(temporary)
        alive.acquire()  # before the directory is there to be taken for left behind
        try:
            temporary.mkdir()
            yield temporary
            files = {str(file.relative_to(temporary)): file for file in sorted(temporary.rglob("*")) if file.is_file()}
            hashes = {name: hash_file(file) for name, file in files.items()}
            manifest = {"made_from": made_from, "sha256": hashes, "stat": {name: _stat(file) for name, file in files.items()}}
            write_text(temporary / "manifest.json", json.dumps(manifest, indent=1))
            if final.is_dir() and _damage(final, to_read=True):
                shutil.rmtree(final)
            try:
                temporary.rename(final)
            except OSError:  # another process made the same entry meanwhile: its content is the same
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            alive.release()
            Path(alive.lock_file).unlink(missing_ok=True)

    def remove(self, kind: str, made_from: object) -> None:
        """Remove an entry, if it is there; whoever removes it holds its lock."""
        path = self.path(kind, made_from)
        if path.is_dir():
            removed = path.rename(path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}-{socket.gethostname()}"))
            shutil.rmtree(removed, ignore_errors=True)

    def hashes(self, files: Sequence[Path]) -> list[str]:
        """Return the SHA-256 of each file's content. A file that is the same as before, links resolved, is not read again."""
        made_from = {"files": [as_on_disk(file) for file in files]}

        def fill(entry: Path) -> None:
            write_text(entry / "hashes.json", json.dumps(hash_all(files)))

        entry = self.ensure("hashes", made_from, fill, to_read=True)
        hashes: list[str] = json.loads((entry / "hashes.json").read_text(encoding="utf-8"))
        return hashes

    def _alive(self, unfinished: Path) -> filelock.BaseFileLock:
        """Return the lock that a process holds as long as it makes an unfinished entry."""
        folder = self.root / "locks" / "unfinished"
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(folder / unfinished.name.removeprefix(UNFINISHED))

    def _remove_left_behind(self, folder: Path) -> None:
        """Remove unfinished entries of processes of this machine that have ended; other machines' locks may be invisible here.

        A process id would not do: containers may share a machine's name and not its processes.
        """
        for path in folder.glob(f"{UNFINISHED}*"):
            if path.name.removeprefix(UNFINISHED).partition("-")[2] != socket.gethostname():
                continue
            alive = self._alive(path)
            with suppress(filelock.Timeout), alive.acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)
                Path(alive.lock_file).unlink(missing_ok=True)

    def _version(self) -> int:
        try:
            return int((self.root / "version").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0  # nothing is in it yet
        except ValueError as error:
            raise UserError(f"{self.root / 'version'} does not say a store's version: is {self.root} a store?") from error


def _stat(file: Path) -> list[int]:
    """Size and time of the last change: what an edit, a copy or a cut changes, and turned bits do not."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _damage(path: Path, to_read: bool) -> str | None:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        hashes, stats = dict(manifest["sha256"]), dict(manifest.get("stat", {}))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"its manifest cannot be read: {error}"
    for name, expected in hashes.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if (to_read or _stat(path / name) != stats.get(name)) and hash_file(path / name) != expected:
            return f"{name} is not what was written"
    return None
