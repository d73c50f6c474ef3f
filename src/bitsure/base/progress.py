"""Show what goes on: a bar with the time elapsed and left, or the time of what cannot be counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from bitsure.base import terminal
from bitsure.base.plain_text import without_controls

LOG_EVERY = 10.0  # seconds between progress lines where there is no terminal
LOG_EVERY_IN_CELL = 60.0  # the same in a cell of a sweep
SHOW_AFTER = 2.0  # seconds after which what goes on is shown
REFRESH = 1.0  # seconds after which its time is shown anew

Step = TypeVar("Step")


class Advance(Protocol):
    """Reports progress."""

    def __call__(self, n: int = 1, total: int | None = None, note: str = "", unit: str = "") -> None:
        """Count n more steps as done.

        Args:
            n: How many steps.
            total: How many there are in all, where that has changed.
            note: What is shown beside them.
            unit: What the steps are, such as `blocks`, where that is known only now.
        """


@dataclass
class _State:
    """What this process shows."""

    cell: str = ""
    """The cell of a sweep that it runs; empty for a single run."""
    lines: list[_WorkLine] = field(default_factory=list)
    """Those of what goes on, the innermost last."""
    consoles: list[Console] = field(default_factory=list)
    """Those that something is shown on, the innermost last."""


_state = _State()


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: 0:01:04."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def begin_cell(name: str) -> None:
    """Put the name of the sweep's cell that this process runs before what goes on; its one line comes at its end."""
    _state.cell = name


@contextmanager
def progress(description: str, total: int | None, unit: str = "") -> Iterator[Advance]:
    """Show progress with the time elapsed and left: a bar on a terminal, elsewhere a line every LOG_EVERY seconds.

    Args:
        description: What is done.
        total: How many steps there are; None where that is unknown.
        unit: What the steps are, such as `windows`; empty where that is unknown.

    Yields:
        A function that counts steps.
    """
    out = terminal.console()
    with _covered(), _showing_on(out):
        if not out.is_terminal:
            yield _progress_lines(out, _in_cell(description), total, unit)
            return
        with Bar(out, transient=bool(_state.cell)) as bar:
            task = bar.add_task(_in_cell(description), total=total, unit=unit)

            def advance(n: int = 1, total: int | None = None, note: str = "", unit: str = "") -> None:
                if total is not None:
                    bar.update(task, total=total)
                if unit:
                    bar.update(task, unit=unit)
                bar.update(task, advance=n, description=_in_cell(f"{description} {note}"))

            yield advance


def counted(steps: Iterable[Step], advance: Advance) -> Iterator[Step]:
    """Yield steps, and count each as done when the next one, or the end, has come."""
    before = 0
    for step in steps:
        advance(before)
        before = 1
        yield step
    advance(before)


@contextmanager
def progress_in_lines(description: str, total: int, unit: str) -> Iterator[Advance]:
    """As `progress`, in lines on a terminal too: where what goes on around is shown, also while a library's output is not."""
    out = _state.consoles[-1] if _state.consoles else terminal.console()
    with _covered():
        yield _progress_lines(out, _in_cell(description), total, unit)


class _TimesColumn(ProgressColumn):
    """The steps done, and the time elapsed, and left where that can be told."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Return all in words."""
        left = f", {clock(task.time_remaining)} left" if task.time_remaining else ""
        return Text(
            f"{_count(round(task.completed), task.total, task.fields['unit'])}, {clock(task.elapsed or 0)} elapsed{left}"
        )


class Bar(Progress):
    """A progress bar below what it is of: beside it, a narrow terminal would cut words."""

    def __init__(self, out: Console, transient: bool) -> None:
        super().__init__(
            BarColumn(bar_width=None),
            _TimesColumn(),
            console=out,
            expand=True,
            transient=transient,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is done, and the bar."""
        for task in self.tasks:
            yield Text(task.description)
            yield self.make_tasks_table([task])


def _count(done: int, expected: float | None, unit: str) -> str:
    """Return what is done: `3 of 12 blocks`, `3 blocks` or `3`."""
    return f"{f'{done} of {expected:.0f}' if expected else done} {unit}".rstrip()


def _progress_lines(out: Console, description: str, expected: int | None, steps: str) -> Advance:
    started = last = time.monotonic()
    done = 0

    def advance(n: int = 1, total: int | None = None, note: str = "", unit: str = "") -> None:
        nonlocal done, expected, last, steps
        done, steps = done + n, unit or steps
        expected = expected if total is None else total
        now = time.monotonic()
        if now - last >= _log_every() and done:
            left = f", {clock((now - started) / done * max(0, expected - done))} left" if expected else ""
            what = f"{_count(done, expected, steps)}{f' ({note})' if note else ''}"
            out.print(f"{description}: {what}, {clock(now - started)} elapsed{left}", markup=False)
            last = now

    return advance


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show what goes on within the block once it takes longer than SHOW_AFTER, and for how long it has.

    Nothing is shown while a `progress`, or another `working`, goes on inside.
    """
    line = _WorkLine(terminal.console(), _in_cell(what))
    with _covered(), _showing_on(line.out):
        _state.lines.append(line)
        thread = threading.Thread(target=line.keep_showing, daemon=True)
        thread.start()
        try:
            yield
        finally:
            _state.lines.remove(line)
            line.stopped.set()
            thread.join()
            line.end()


class _WorkLine:
    """The line that says what goes on, and for how long."""

    def __init__(self, out: Console, what: str) -> None:
        self.out, self.what = out, what
        self.stopped = threading.Event()
        self._began = self._alone_since = self._last = time.monotonic()
        self._lock, self._covers, self._shown = threading.Lock(), 0, False

    def keep_showing(self) -> None:
        """Show the line anew each second, until it is stopped."""
        while not self.stopped.wait(REFRESH):
            with self._lock:
                if not self._covers and time.monotonic() - self._alone_since >= SHOW_AFTER:
                    self._show()

    def cover(self, n: int) -> None:
        """Hide the line while something inside shows itself (n = 1), or let it come back (n = −1)."""
        with self._lock:
            self._covers += n
            self._alone_since = time.monotonic()
            self._erase()

    def end(self) -> None:
        """Leave a line with the whole time, if any was shown and this is no cell, whose one line comes at its end."""
        self._erase()
        if self._shown and not _state.cell:
            self.out.print(f"{self.what}: {self._elapsed()}", markup=False)

    def _elapsed(self) -> str:
        return clock(time.monotonic() - self._began)

    def _show(self) -> None:
        if self.out.is_terminal:  # what others print afterwards, such as a warning, begins at the left and replaces it
            text = without_controls(f"{self.what}: {self._elapsed()} elapsed")[: self.out.width - 1]
            self.out.file.write(f"\r\x1b[2K{text}\r")
            self.out.file.flush()
        elif time.monotonic() - self._last >= _log_every() or not (self._shown or _state.cell):
            self.out.print(f"{self.what}: {self._elapsed()} elapsed", markup=False)
            self._last = time.monotonic()
        else:
            return
        self._shown = True

    def _erase(self) -> None:
        if self._shown and self.out.is_terminal:
            self.out.file.write("\x1b[2K")
            self.out.file.flush()


@contextmanager
def _showing_on(out: Console) -> Iterator[None]:
    """Let `progress_in_lines` print on a console within the block."""
    _state.consoles.append(out)
    try:
        yield
    finally:
        _state.consoles.pop()


@contextmanager
def _covered() -> Iterator[None]:
    """Hide the line of what goes on around the block while the block shows something itself."""
    around = _state.lines[-1] if _state.lines else None
    if around:
        around.cover(1)
    try:
        yield
    finally:
        if around:
            around.cover(-1)


def _in_cell(description: str) -> str:
    return f"{_state.cell}: {description}" if _state.cell else description


def _log_every() -> float:
    return LOG_EVERY_IN_CELL if _state.cell else LOG_EVERY
