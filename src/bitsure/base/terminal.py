"""Print to the terminal: one console, progress with the time left, libraries kept quiet, and nothing that controls it."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment

from bitsure.base.plain_text import without_controls

LOG_EVERY = 10.0  # seconds between progress lines where there is no terminal


class Advance(Protocol):
    """Reports progress."""

    def __call__(self, n: int = 1, total: int | None = None, note: str = "") -> None:
        """Count n more steps as done.

        Args:
            n: How many steps.
            total: How many there are in all, where that has changed.
            note: What is shown beside them.
        """


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


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """Show progress: a bar with the time left on a terminal, elsewhere a line every LOG_EVERY seconds.

    Args:
        description: What is done.
        total: How many steps there are; None where that is unknown.

    Yields:
        A function that counts steps.
    """
    out = console()
    if not out.is_terminal:
        yield _progress_lines(out, description, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=out, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(description, total=total)

        def advance(n: int = 1, total: int | None = None, note: str = "") -> None:
            if total is not None:
                bar.update(task, total=total)
            bar.update(task, advance=n, description=f"{description} {note}")

        yield advance


def _progress_lines(out: Console, description: str, expected: int | None) -> Advance:
    started = last = time.monotonic()
    done = 0

    def advance(n: int = 1, total: int | None = None, note: str = "") -> None:
        nonlocal done, expected, last
        done += n
        expected = expected if total is None else total
        now = time.monotonic()
        if now - last >= LOG_EVERY and done:
            left = f" of {expected}, {(now - started) / done * (expected - done):.0f} s left" if expected else ""
            out.print(f"{description}: {done}{left} {note}".rstrip(), markup=False)
            last = now

    return advance


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send what libraries print from Python (banners, bars, warnings) to the end of a file."""
    file = path.open(
        "a", buffering=1, encoding="utf-8", errors="replace"
    )  # it stays open: a library's background threads may still write to it
    with redirect_stdout(file), redirect_stderr(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
