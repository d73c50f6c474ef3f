"""What is scored so far of one task, appended batch by batch, so that a killed process loses one batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from bitsure.scoring.forward import Scored
from bitsure.scoring.rows import Request


class Journal:
    """A file of lines: a checksum, a request's hash, its log-probabilities. A damaged line is as if it were not there."""

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[str, Scored] = {}
        if path.is_file():
            self._known = dict(filter(None, map(_read, path.read_text(errors="replace").splitlines())))

    def __len__(self) -> int:
        return len(self._known)

    def get(self, request: Request) -> Scored | None:
        return self._known.get(_key(request))

    def append(self, scored: Iterable[tuple[Request, Scored]]) -> None:
        """One write, so that lines of two processes do not mix."""
        text = "".join(_line(_key(request), one) for request, one in scored)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ends_well = not self.path.is_file() or self.path.stat().st_size == 0 or _last_byte(self.path) == b"\n"
        with self.path.open("a") as file:
            file.write(text if ends_well else "\n" + text)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _key(request: Request) -> str:
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]


def _line(key: str, one: Scored) -> str:
    content = json.dumps([key, one.token_logprobs, one.greedy])
    return f"{_checksum(content)} {content}\n"


def _read(line: str) -> tuple[str, Scored] | None:
    checksum, _, content = line.partition(" ")
    if checksum != _checksum(content):
        return None
    key, token_logprobs, greedy = json.loads(content)
    return key, Scored(token_logprobs, greedy)


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)
