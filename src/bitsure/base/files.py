"""Files that are there whole or not at all, and the hashes of their content."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bitsure.base.errors import DiskError, UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
ANOTHER_PLACE = "paths.store=DIR for the store, hydra.run.dir=DIR or hydra.sweep.dir=DIR for results, --out DIR for a report"
PROBE = bytes(2**16)  # as much as the first files of a run need


def check_file_names(names: Iterable[str]) -> None:
    """Check that libraries open the files that Python names.

    Args:
        names: What may name files: arguments, environment variables, the working directory.

    Raises:
        UserError: If a name is not ASCII where Python's names of files are not in UTF-8, as libraries take them to be.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    for name in names:
        if not name.isascii():
            shown, encoding = os.fsencode(name).decode(errors="replace"), sys.getfilesystemencoding()
            raise UserError(
                f"{shown}: in this locale Python reads names as {encoding}, and libraries cannot open such a file. Set the "
                "environment variable PYTHONUTF8=1 and give the same command again."
            )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise DiskError where the disk is full inside the block, or a file may not be read or written; other errors pass.

    Args:
        path: What the block writes: named in the message where the error itself names no file.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        number = _error_number(error)
        if number not in (*FULL, *FORBIDDEN):
            raise
        file = getattr(error, "filename", None)
        place = path if file is None or Path(file).name.startswith(".") else file  # not a temporary name
        what = "Free space" if number in FULL else "Make it a directory that may be read and written"
        raise DiskError(f"{place}: {os.strerror(number)}. {what}, or choose another place: {ANOTHER_PLACE}.") from error


def _error_number(error: Exception) -> int | None:
    """Return the system's number of an error; libraries written in Rust, such as safetensors, put it into their text."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def make_writable(directory: Path) -> None:
    """Make a directory, and raise DiskError if files cannot be written in it."""
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{uuid.uuid4().hex[:8]}"
        try:
            probe.write_bytes(PROBE)
        finally:
            probe.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder for results, if it is not there.

    Raises:
        DiskError: If it cannot be made, or is a link: in a directory that comes from others it may lead anywhere.
    """
    if folder.is_symlink():
        raise DiskError(
            f"{folder} is a link to {os.readlink(folder)}: nothing is written through links. Remove it, or choose another "
            f"place: {ANOTHER_PLACE}."
        )
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file or make a directory at; it becomes `path` when the block ends well.

    The temporary path lies beside `path`, so that the rename is one step. If the block raises, whatever was written is removed
    and `path` stays as it was. An existing file is replaced; an existing directory is not, unless it is empty.

    Args:
        path: Where the file or directory goes. Its parent must exist.

    Yields:
        A path that does not exist yet, hidden and with another ending than `path`, so that no glob finds it half done.

    Raises:
        DiskError: If the disk is full, or the place cannot be written or is a device or a pipe.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a rename would replace it: root would lose /dev/null
        raise DiskError(f"{path} is a device or a pipe. Choose another place: {ANOTHER_PLACE}.")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with disk_errors(path):
            yield temporary
            temporary.rename(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; what Python keeps of other bytes in file names is written as these."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def hash_json(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON (keys sorted), in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_on_disk(file: Path) -> list[str | int]:
    """Return what changes with a file's content, without reading it: its path with links resolved, size, times and inode.

    The inode and the time of its last change are new for a file that is put in another's place with that one's size and time.
    """
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def files_under(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted; links are followed, and each folder is read once."""
    files: list[Path] = []
    visited: set[str] = set()
    for place, subfolders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        files += [file for name in names if (file := Path(place, name)).is_file()]
    return sorted(files)


def files_at(place: Path) -> list[Path]:
    """Return the file, the files in a folder, or those that a pattern such as `*.jsonl` names, sorted."""
    if place.is_dir():
        return files_under(place)
    if place.is_file() or not glob.has_magic(str(place)):
        return [place] if place.is_file() else []
    return sorted(file for name in glob.glob(str(place), recursive=True) if (file := Path(name)).is_file())
