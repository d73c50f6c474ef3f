"""A template without end, or that fills the memory, is one sentence."""

from __future__ import annotations

import resource
import signal

import pytest
from jinja2 import Environment

from bitsure.base import rendering
from bitsure.base.errors import UserError
from bitsure.base.rendering import rendered

ENDLESS = "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}"
GROWING = "{% set n = namespace(text='ab') %}{% for i in range(99) %}{% set n.text = n.text ~ n.text %}{% endfor %}{{ n.text }}"


def render(template: str) -> str:
    return rendered("the template", lambda: Environment().from_string(template).render(q="ab" * 200), lambda: 400)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (ENDLESS, "it computes for more than 0.2 seconds"),
        (GROWING, "MemoryError"),
        ("{{ 'x' * 10**10 }}", "MemoryError"),
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


def test_an_ordinary_text_stays_as_it_is():
    assert render("{{ q * 20 }}") == "ab" * 4_000
