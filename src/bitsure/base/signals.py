"""What Ctrl-C and SIGTERM do while work goes on: nothing, or something after its end, or break it off whatever it catches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

STOPS = (signal.SIGINT, signal.SIGTERM)
Result = TypeVar("Result")


class _Stopped(BaseException):
    """Breaks off the work of `call_stoppable`."""


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM within the block, which says how a run that is being stopped ended.

    Whoever stops a run often signals twice: a terminal and the launcher do.
    """
    with _handled_by(lambda number: None):
        yield


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect at the end of the block, and not within it."""
    received: list[int] = []
    try:
        with _handled_by(received.append):
            yield
    finally:
        _raise_first(received)


def call_stoppable(work: Callable[[], Result]) -> Result:
    """Return what `work` returns. Ctrl-C and SIGTERM end it although a library in it catches KeyboardInterrupt and goes on.

    Further signals take no effect while it ends.
    """
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            raise _Stopped

    # A block of `with` has no place for an error between the handler's start and its own.
    handler = _Handler(stop)
    try:
        try:
            handler.begin()
            return work()
        finally:
            handler.end()
    except _Stopped:
        handler.end()
        raise KeyboardInterrupt from None
    finally:
        _raise_first(received)


def _raise_first(received: list[int]) -> None:
    """Let the first of the signals that were received take effect now."""
    if received:
        signal.raise_signal(received[0])


@contextmanager
def _handled_by(handle: Callable[[int], object]) -> Iterator[None]:
    """Handle both signals within the block by a function that raises nothing."""
    handler = _Handler(handle)
    handler.begin()
    try:
        yield
    finally:
        handler.end()


class _Handler:
    """Handles both signals from `begin` to `end`, unless they are ignored around, as SIGINT is in a shell's background job.

    A signal may come between any two instructions, also while one of them is handled already and the other is not. Before
    `begin` has set both and from `end` on, this handler does what the earlier ones do.

    Python handles signals in the main thread only; in another one nothing changes.

    Args:
        handle: Is given the signal's number.
    """

    def __init__(self, handle: Callable[[int], object]) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        earlier = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOPS if in_main_thread}
        self._earlier = {number: handler for number, handler in earlier.items() if handler != signal.SIG_IGN}
        self._handle, self._active = handle, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        earlier = self._earlier[signal.Signals(number)]
        if self._active:
            self._handle(number)
        elif callable(earlier):
            earlier(number, frame)
        else:
            signal.signal(number, earlier)
            signal.raise_signal(number)

    def begin(self) -> None:
        """Handle the signals from now on."""
        try:
            for number in self._earlier:
                signal.signal(number, self)
            self._active = True
        except BaseException:  # an earlier handler's
            self.end()
            raise

    def end(self) -> None:
        """Put the earlier handlers back."""
        try:
            self._active = False
            self._put_back()
        except BaseException:  # an earlier handler's
            self._put_back()
            raise

    def _put_back(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
