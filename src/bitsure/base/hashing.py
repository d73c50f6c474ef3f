"""Hash many or large files, and show how long it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bitsure.base.files import hash_file
from bitsure.base.progress import Advance, progress_in_lines

SHOWN = 2**30  # bytes from which on hashing is shown
CHUNK = 2**24  # bytes that are read at one time
MIB = 2**20


def hash_all(files: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file's content, as `hash_file`; the time left is shown if the files are large."""
    size = sum(file.stat().st_size for file in files)
    if size < SHOWN:
        return [hash_file(file) for file in files]
    with progress_in_lines("hashing files to identify them", size // MIB, "MiB") as advance:
        return [_hash(file, advance) for file in files]


def _hash(file: Path, advance: Advance) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk) // MIB)
    return digest.hexdigest()
