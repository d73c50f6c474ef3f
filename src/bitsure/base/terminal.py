"""Print to the terminal: one console, libraries kept quiet, and nothing that controls it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from typing_extensions import override

from bitsure.base.plain_text import without_controls

_stdout_aside: list[TextIO] = []
"""What stdout is while its descriptor leads to a file; the innermost last."""
STANDARD = {"stdout": 1, "stderr": 2}  # their descriptors
NARROW = 72  # columns, above which a table's numbers stay on one line


class PlainStream:
    """A stream to a terminal that no text can control: escape sequences are shown and not obeyed."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    def write(self, text: str) -> int:
        """Write text; it may begin with the carriage return of a library's progress bar."""
        bar = "\r" * text.startswith("\r")
        with self._dropped_if_unread():
            self.terminal.write(bar + without_controls(text.removeprefix("\r")))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._dropped_if_unread():
            self.terminal.flush()

    @contextmanager
    def _dropped_if_unread(self) -> Iterator[None]:
        """Send all that follows nowhere if whoever reads has stopped, as `| head` does: the work goes on."""
        try:
            yield
        except BrokenPipeError:
            _drop(self.terminal)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


def protect() -> None:
    """Let nothing that is printed from now on, such as a traceback, control the terminal or fail for its encoding.

    A character that the encoding of stdout lacks is printed as a question mark. What goes to a stream that is closed, as
    those of a service in the background can be, is dropped.
    """
    for name, descriptor in STANDARD.items():
        if getattr(sys, name) is None:
            _open_nowhere(name, descriptor)
        stream = getattr(sys, name)
        if not isinstance(stream, PlainStream):
            if name == "stdout" and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
            setattr(sys, name, PlainStream(stream))


def _drop(stream: IO[str]) -> None:
    """Send nowhere what is written to a stream from now on, and what it has buffered."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _open_nowhere(name: str, descriptor: int) -> None:
    """Open a stream that was closed when Python started, so that no file gets its descriptor, to which libraries write."""
    nowhere = Path(os.devnull)
    stream = nowhere.open("w", encoding="utf-8")
    os.dup2(stream.fileno(), descriptor)
    os.set_inheritable(descriptor, True)
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


class SafeConsole(Console):
    """A console that no text can control: escape sequences in names are shown and not obeyed."""

    @property
    @override
    def file(self) -> IO[str]:
        """Where it prints: to what stdout is, also while stdout's descriptor leads to a file (`descriptors_to`)."""
        file = super().file
        return _stdout_aside[-1] if _stdout_aside and file is sys.__stdout__ else file

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    @override
    def on_broken_pipe(self) -> None:
        """Drop what nobody reads any more; rich would end the program."""
        _drop(self.file)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield what is printed; rich's own control codes pass."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(without_controls(segment.text), segment.style)


def console() -> SafeConsole:
    """Return a console on the present stdout, which still prints while a library's output is redirected."""
    out: Any = sys.stdout.terminal if isinstance(sys.stdout, PlainStream) else sys.stdout  # the console's own colours pass
    return SafeConsole(file=out, soft_wrap=not out.isatty(), highlight=False)


def show_table(out: Console, table: Table) -> None:
    """Print a table that has rows; below NARROW columns its cells continue on the next line, where they would be cut."""
    if not table.rows:
        return
    if out.width < NARROW:
        for column in table.columns:
            column.no_wrap = False
    out.print(table)


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send what libraries print from Python (banners, bars, warnings) to the end of a file."""
    # It stays open: a library's background threads may still write to it.
    file = path.open("a", buffering=1, encoding="utf-8", errors="replace")
    with redirect_stdout(file), redirect_stderr(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def descriptors_to(path: Path) -> Iterator[None]:
    """Send to the end of a file what libraries in C print, and all that processes print that start within the block.

    Such a process goes on writing there for as long as it runs. What `console` returned goes on printing to the terminal.
    """
    _flush()
    kept = [os.dup(descriptor) for descriptor in STANDARD.values()]
    encoding = getattr(sys.__stdout__, "encoding", None)
    aside = os.fdopen(kept[0], "w", encoding=encoding, errors="replace")  # it stays open: a bar's thread may still write to it
    with path.open("ab", buffering=0) as file:
        for descriptor in STANDARD.values():
            os.dup2(file.fileno(), descriptor)
        _stdout_aside.append(aside)
        try:
            yield
        finally:
            _flush()
            _stdout_aside.remove(aside)
            for descriptor, before in zip(STANDARD.values(), kept, strict=True):
                os.dup2(before, descriptor)
            os.close(kept[1])


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
