"""A template without end, or that fills the memory, is one sentence."""

from __future__ import annotations

import resource
import signal
import time
from contextlib import suppress

import pytest

from bitsure.base import rendering
from bitsure.base.errors import UserError
from bitsure.base.rendering import LimitedEnvironment, rendered

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GROWING = "{% set n = namespace(text='ab') %}{% for i in range(99) %}{% set n.text = n.text ~ n.text %}{% endfor %}{{ n.text }}"


def render(template: str) -> str:
    return rendered("the template", lambda: LimitedEnvironment().from_string(template).render(q="ab" * 200), lambda: 400)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (ENDLESS, "it computes for more than 0.2 seconds"),
        (GROWING, "MemoryError"),
        ("{{ 'x' * 10**10 }}", "MemoryError"),
        ("{{ 10**(10**9) }}", "OverflowError: its numbers have more than 4,300 digits"),
        ("{{ 10**9999 }}", "OverflowError: its numbers have more than 4,300 digits"),
        ("{% set n = namespace(x=7) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}", "OverflowError"),
        ("{{ q * 10000 }}", "it makes 4,000,000 characters of 400"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "RecursionError"),
    ],
)
def test_what_takes_too_much_is_refused_and_the_limits_end_with_it(monkeypatch, template, why):
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(UserError, match=f"the template cannot be rendered: {why}"):
        render(template)
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_a_library_that_passes_over_errors_does_not_pass_over_the_limit(monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 0.1)

    def compute() -> str:
        for _ in range(2):
            with suppress(Exception):
                end = time.process_time() + 0.3
                while time.process_time() < end:
                    pass
        return "text"

    with pytest.raises(UserError, match=r"it computes for more than 0\.1 seconds"):
        rendered("the template", compute, lambda: 0)


def test_numbers_of_ordinary_sizes_are_computed():
    assert render("{{ 2**10 }} {{ 3 * 4 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ '%s' % 5 }} {{ 2.0**0.5 > 1 }}") == "1024 12 3 3 5 True"


def test_an_ordinary_text_stays_as_it_is():
    assert render("{{ q * 20 }}") == "ab" * 4_000
