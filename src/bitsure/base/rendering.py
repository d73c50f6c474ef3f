"""Rendering a template that others wrote: within limits of time, memory and length."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bitsure.base.errors import UserError

SECONDS = 10  # of computing for one text; ordinary templates take less than a thousandth
MEMORY = 2**30  # bytes for one text
LENGTH = 1_000_000  # characters of one text, besides ten times what was filled in
DIGITS = 4300  # of a whole number; Python writes no longer ones


class _TooLong(BaseException):
    """A template computes for longer than SECONDS; no Exception, since jinja passes over these when it folds constants."""


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """jinja's sandbox without huge numbers: no signal interrupts Python while it multiplies or divides them."""

    intercepted_binops = frozenset({"**", "*", "//", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return what a binary operator gives. Raises OverflowError for numbers of more than DIGITS digits."""
        digits = [n.bit_length() * 0.30103 for n in (left, right) if isinstance(n, int)]
        if operator == "**" and len(digits) == 2:
            digits.append(digits[0] * abs(right))
        if any(n > DIGITS for n in digits):
            raise OverflowError(f"its numbers have more than {DIGITS:,} digits")
        return super().call_binop(context, operator, left, right)


def rendered(what: str, render: Callable[[], str], filled_in: Callable[[], int]) -> str:
    """Return what a template makes.

    Args:
        what: The template, for the message.
        render: Renders it.
        filled_in: Returns the length of what is filled in, in characters.

    Raises:
        UserError: If it takes too much time or memory, or its text is too long.
    """
    try:
        with _limits():
            text = render()
    except _TooLong:
        raise _refused(what, f"it computes for more than {SECONDS} seconds") from None
    except (MemoryError, RecursionError, OverflowError) as error:
        reason = str(error).rstrip(".") or "it needs more than a GiB of memory"
        raise _refused(what, f"{type(error).__name__}: {reason}") from None
    if len(text) > LENGTH and len(text) > LENGTH + 10 * filled_in():
        raise _refused(what, f"it makes {len(text):,} characters of {filled_in():,}")
    return text


def _refused(what: str, why: str) -> UserError:
    return UserError(f"{what} cannot be rendered: {why}. Mend the template: one text may take {SECONDS} seconds and a GiB.")


@contextmanager
def _limits() -> Iterator[None]:
    """Raise _TooLong or MemoryError within the block if it takes too much; only the main thread has such limits."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    handler = signal.signal(signal.SIGVTALRM, stop)
    try:
        with _memory_limit():
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1)  # computing time, so that a busy machine does not matter
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, handler)


@contextmanager
def _memory_limit() -> Iterator[None]:
    """Let the process allocate MEMORY more bytes within the block, where the system can tell how many it has."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as size:
        wanted = int(size.read().split()[0]) * resource.getpagesize() + MEMORY
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
