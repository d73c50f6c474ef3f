"""Files that are there whole or not at all, and the hashes of their content."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file or make a directory at; it becomes `path` when the block ends well.

    The temporary path lies beside `path`, so that the rename is one step. If the block raises, whatever was written is removed
    and `path` stays as it was. An existing file is replaced; an existing directory is not, unless it is empty.

    Args:
        path: Where the file or directory goes. Its parent must exist.

    Yields:
        A path that does not exist yet, hidden and with another ending than `path`, so that no glob finds it half done.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
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
