"""Ctrl-C and SIGTERM wait for the end of work that must not be broken off."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bitsure.base.signals import call_stoppable, signals_held, signals_ignored


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def number(request):
    """A signal, which raises KeyboardInterrupt as in main.py."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_takes_effect_at_the_end_of_a_block_that_holds_it(number):
    finished = False
    with pytest.raises(KeyboardInterrupt), signals_held():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        finished = True
    assert finished and signal.getsignal(number) is signal.default_int_handler


def test_a_signal_takes_effect_where_the_block_fails(number):
    with pytest.raises(KeyboardInterrupt) as stopped, signals_held():
        os.kill(os.getpid(), number)
        raise ValueError
    assert isinstance(stopped.value.__context__, ValueError)


def test_a_signal_that_is_ignored_takes_no_effect(number):
    with signals_ignored():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.default_int_handler


@pytest.mark.parametrize("caught", [KeyboardInterrupt, BaseException])
def test_a_signal_ends_work_that_catches_keyboard_interrupts_or_takes_effect_after_it(caught, number):
    passed = []

    def work() -> None:
        with suppress(caught):
            os.kill(os.getpid(), number)
            passed.append("signal")
        passed.append("block")

    with pytest.raises(KeyboardInterrupt):
        call_stoppable(work)
    assert passed == (["block"] if caught is BaseException else [])
    assert signal.getsignal(number) is signal.default_int_handler


def test_a_second_signal_does_not_break_off_the_clean_up_after_the_first(number):
    cleaned_up = False

    def work() -> None:
        nonlocal cleaned_up
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            cleaned_up = True

    with pytest.raises(KeyboardInterrupt):
        call_stoppable(work)
    assert cleaned_up


def held() -> None:
    with signals_held():
        pass


def ignored() -> None:
    with signals_ignored():
        pass


def stoppable() -> None:
    call_stoppable(lambda: None)


@pytest.mark.parametrize("block", [held, stoppable])
def test_a_signal_that_is_ignored_around_a_block_is_ignored_in_it(block, number):
    signal.signal(number, signal.SIG_IGN)
    with at_instruction(lambda at: at == 100 and os.kill(os.getpid(), number)):
        block()
    assert signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def at_instruction(act: Callable[[int], object]) -> Iterator[None]:
    """Call a function before each of Python's instructions in the functions that the block calls, with how many were before."""
    count, before = itertools.count(), sys.gettrace()

    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        if event == "opcode":
            act(next(count))
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("block", [held, ignored, stoppable])
def test_a_signal_before_any_instruction_interrupts_and_leaves_the_handlers_as_they_were(block, number, default_signals):
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    seen: list[int] = []
    with at_instruction(seen.append):
        block()
    assert len(seen) > 100
    interrupted = 0
    for place in seen:
        try:
            with at_instruction(lambda at, place=place: at == place and signal.raise_signal(number)):
                block()
        except KeyboardInterrupt:
            interrupted += 1
        handlers = {signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        assert handlers == {signal.default_int_handler}, place
    assert interrupted == len(seen) if block is not ignored else 0 < interrupted < len(seen)


def test_threads_besides_the_main_one_hold_nothing():
    errors: list[BaseException] = []

    def hold() -> None:
        try:
            with signals_held(), signals_ignored():
                call_stoppable(lambda: None)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert not errors
