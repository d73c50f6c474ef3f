"""What is scored so far of one task, and in which batches, so that a killed process loses one of them and not a bit more.

Another batch shape moves the last digits of a log-probability. So the journal says how many tokens a batch may have before the
first one is run, and whoever goes on makes the same batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bitsure.scoring.local.forward import Scored
from bitsure.scoring.local.rows import Request


class Limits(NamedTuple):
    """The most tokens of a batch, padding counted."""

    shared: int  # of trees
    plain: int  # of whole inputs, where every token has logits


class Journal:
    """A file of lines, each with a checksum: limits, or a request's hash and its log-probabilities.

    A damaged line is as if it were not there; what comes before the first limits was run in unknown batches and is not
    believed. path: None keeps everything in memory.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._known: dict[str, Scored] = {}
        self._limits: list[tuple[int, Limits]] = []  # from how many scored requests on
        self._read()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, request: Request) -> Scored | None:
        return self._known.get(_key(request))

    def begin(self, limits: Limits) -> None:
        """Say what batches may have, unless that was said before. Of two processes that do, the first is heard."""
        if not self._limits:
            self._append([["begin", *limits]])
            self._read()

    def lower(self, after: int, limits: Limits) -> None:
        """From the batch on before which so many requests were scored, batches may have less."""
        self._append([["lower", after, *limits]])

    def limits(self, after: int) -> Limits:
        """What the batch may have before which so many requests were scored."""
        return [limits for since, limits in self._limits if since <= after][-1]

    def append(self, scored: Iterable[tuple[Request, Scored]]) -> None:
        self._append([[_key(request), one.token_logprobs, one.greedy] for request, one in scored])

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        self._known, self._limits = {}, []
        for line in self.path.read_text(errors="replace").splitlines():
            self._take(_content(line))

    def _take(self, content: list | None) -> None:
        match content:
            case ["begin", shared, plain]:
                if not self._limits:
                    self._limits, self._known = [(0, Limits(shared, plain))], {}
            case ["lower", after, shared, plain]:
                self._limits.append((after, Limits(shared, plain)))
            case [key, token_logprobs, greedy]:
                self._known[key] = Scored(token_logprobs, greedy)

    def _append(self, contents: list[list]) -> None:
        """One write, so that lines of two processes do not mix."""
        for content in contents:
            self._take(content)
        if self.path is None:
            return
        text = "".join(f"{_checksum(content)} {content}\n" for content in map(json.dumps, contents))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ends_well = not self.path.is_file() or self.path.stat().st_size == 0 or _last_byte(self.path) == b"\n"
        with self.path.open("a") as file:
            file.write(text if ends_well else "\n" + text)


def _key(request: Request) -> str:
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]


def _content(line: str) -> list | None:
    checksum, _, content = line.partition(" ")
    return json.loads(content) if checksum == _checksum(content) else None


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)
