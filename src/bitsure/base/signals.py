"""What Ctrl-C and SIGTERM do while work goes on: nothing, or something after its end, or break it off whatever it catches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOPS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """A signal that came in a block of `signals_not_caught`; its argument is the number."""


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM within the block, which says how a run that is being stopped ended.

    Whoever stops a run often signals twice: a terminal and the launcher do.
    """
    with _handled_by(signal.SIG_IGN):
        yield


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect at the end of the block, and not within it."""
    received: list[int] = []
    try:
        with _handled_by(lambda number, frame: received.append(number)):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def signals_not_caught() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block although a library in it catches KeyboardInterrupt and goes on."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    try:
        with _handled_by(stop):
            yield
    except _Stopped as stopped:
        signal.raise_signal(stopped.args[0])
        raise KeyboardInterrupt from None


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    """Handle both within the block, unless they are ignored around it, as SIGINT is in a shell's background job.

    Python handles signals in the main thread only; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOPS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier or signal.SIG_DFL)
