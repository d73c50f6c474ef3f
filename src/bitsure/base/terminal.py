"""What the terminal shows: one console, progress with the time left, and libraries kept quiet."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY = 10.0  # seconds between progress lines where there is no terminal


def console() -> Console:
    """A console on the stdout of this moment, so that it still prints while a library's output is kept away."""
    return Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty(), highlight=False)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, total=None, note="")`. On a terminal a bar with the time left, else a line every LOG_EVERY s."""
    out = console()
    if not out.is_terminal:
        yield _lines(out, description, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=out, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(description, total=total)

        def advance(n: int = 1, total: int | None = None, note: str = "") -> None:
            bar.update(task, advance=n, description=f"{description} {note}", **({} if total is None else {"total": total}))

        yield advance


def _lines(out: Console, description: str, total: int | None) -> Callable[..., None]:
    started = last = time.monotonic()
    done, of = 0, total

    def advance(n: int = 1, total: int | None = None, note: str = "") -> None:
        nonlocal done, of, last
        done, of = done + n, total if total is not None else of
        now = time.monotonic()
        if now - last >= LOG_EVERY and done:
            left = f", {(now - started) / done * (of - done):.0f} s left" if of else ""
            out.print(f"{description}: {done}{f' of {of}' if of else ''}{left} {note}".rstrip(), markup=False)
            last = now

    return advance


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send what libraries print (banners, bars, warnings) to a file. Python's output only."""
    file = path.open("a", buffering=1)  # not closed: a library's background threads may still write to it
    with redirect_stdout(file), redirect_stderr(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
