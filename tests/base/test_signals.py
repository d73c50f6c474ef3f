"""Ctrl-C and SIGTERM wait for the end of work that must not be broken off."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from bitsure.base.signals import signals_held, signals_ignored, signals_not_caught


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


def test_a_signal_ends_a_block_that_catches_keyboard_interrupts(number):
    caught = False
    with pytest.raises(KeyboardInterrupt), signals_not_caught():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            caught = True
    assert not caught and signal.getsignal(number) is signal.default_int_handler


@pytest.mark.parametrize("block", [signals_held, signals_not_caught])
def test_a_signal_that_is_ignored_around_a_block_is_ignored_in_it(block, number):
    signal.signal(number, signal.SIG_IGN)
    with block():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_threads_besides_the_main_one_hold_nothing():
    errors: list[BaseException] = []

    def hold() -> None:
        try:
            with signals_held(), signals_ignored(), signals_not_caught():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert not errors
