"""Print to the terminal: one console, libraries kept quiet, and nothing that controls it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from bitsure.base.plain_text import without_controls

NARROW = 72  # columns, above which a table's numbers stay on one line


class PlainStream:
    """A stream to a terminal that no text can control: escape sequences are shown and not obeyed."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    def write(self, text: str) -> int:
        """Write text; it may begin with the carriage return of a library's progress bar."""
        bar = "\r" * text.startswith("\r")
        self.terminal.write(bar + without_controls(text.removeprefix("\r")))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


def protect() -> None:
    """Let nothing that is printed from now on, such as a traceback, control the terminal or fail for its encoding.

    A character that the encoding of stdout lacks is printed as a question mark.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, PlainStream):
            if name == "stdout" and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
            setattr(sys, name, PlainStream(stream))


class SafeConsole(Console):
    """A console that no text can control: escape sequences in names are shown and not obeyed."""

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
    file = path.open(
        "a", buffering=1, encoding="utf-8", errors="replace"
    )  # it stays open: a library's background threads may still write to it
    with redirect_stdout(file), redirect_stderr(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
