"""What has been scored of one task, and in which batches, so that a killed process loses one batch at most.

Another batch shape changes the last digits of a log-probability. So the journal holds the limits of a batch before the first
one is run, and a process that resumes makes the same batches.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from bitsure.scoring.requests import Scored

R = TypeVar("R")


class Limits(NamedTuple):
    """The most tokens of a batch, padding counted."""

    shared: int
    """Of a batch of trees, which have logits only where a token is scored; of answers being written, whose keys are kept."""
    plain: int
    """Of a batch of whole inputs, where every token has logits; of prompts, what is read at once."""


class ResultJournal(Generic[R]):
    """A file of lines, each with a checksum: limits, or a request's hash and its result.

    A damaged line is ignored. So is everything before the first limits: the batches it was run in are unknown.

    Args:
        path: The file, which need not exist; None keeps everything in memory.
        result: The dataclass of a result, whose fields are JSON.
    """

    def __init__(self, path: Path | None, result: type[R]) -> None:
        self.path, self._result = path, result
        self._fields = [field.name for field in dataclasses.fields(cast(Any, result))]
        self._known: dict[str, R] = {}
        self._limits: list[tuple[int, Limits]] = []  # (how many requests were scored before these limits held, limits)
        self._read()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, request: object) -> R | None:
        """Return the result of a request, which is JSON; None if it has none yet."""
        return self._known.get(_key(request))

    def begin(self, limits: Limits) -> None:
        """Set the limits of batches, unless they are set. If two processes do so, the first one's limits hold."""
        if not self._limits:
            self._append([["begin", *limits]])
            self._read()

    def lower(self, after: int, limits: Limits) -> None:
        """Lower the limits, from the batch on before which `after` requests were scored."""
        self._append([["lower", after, *limits]])

    def limits(self, after: int) -> Limits:
        """Return the limits of the batch before which `after` requests were scored."""
        return [limits for since, limits in self._limits if since <= after][-1]

    def append(self, results: Iterable[tuple[object, R]]) -> None:
        """Add results."""
        self._append([[_key(request), *(getattr(result, name) for name in self._fields)] for request, result in results])

    def remove(self) -> None:
        """Remove the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        self._known, self._limits = {}, []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            self._apply(_content(line))

    def _apply(self, content: Sequence[Any] | None) -> None:
        match content:
            case ["begin", shared, plain]:
                if not self._limits:
                    self._limits, self._known = [(0, Limits(shared, plain))], {}
            case ["lower", after, shared, plain]:
                self._limits.append((after, Limits(shared, plain)))
            case [key, *fields]:
                self._known[key] = self._result(*fields)

    def _append(self, contents: list[list[Any]]) -> None:
        """Write lines in one write, so that lines of two processes do not mix."""
        for content in contents:
            self._apply(content)
        if self.path is None:
            return
        text = "".join(f"{_checksum(content)} {content}\n" for content in map(json.dumps, contents))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ends_well = not self.path.is_file() or self.path.stat().st_size == 0 or _last_byte(self.path) == b"\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text if ends_well else "\n" + text)


class Journal(ResultJournal[Scored]):
    """What was scored of choices, continuations and texts; `path` is as in `ResultJournal`."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path, Scored)


def _key(request: object) -> str:
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]


def _content(line: str) -> list[Any] | None:
    """Return what a line says; None if it is damaged."""
    checksum, _, content = line.partition(" ")
    return list(json.loads(content)) if checksum == _checksum(content) else None


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)
