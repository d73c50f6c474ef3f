"""The verdict on the terminal: first, in colour, and never in broken words."""

from __future__ import annotations

import io

import pytest

from bitsure.base import terminal
from bitsure.base.terminal import SafeConsole
from bitsure.comparison import judge
from bitsure.report import terminal_summary
from bitsure.results import Difference
from tests.builders.settings import MARGINS, METRIC


def comparison(nll: float):
    """Return what one task of texts changed, with an error of .004."""
    counts = {
        f"questions_{which}": Difference(value=0, ci_low=None, ci_high=None, n=0) for which in ("joined", "only_baseline")
    }
    counts["questions_only_quantized"] = counts["questions_joined"]
    changed = Difference(value=nll, ci_low=nll - 0.008, ci_high=nll + 0.008, n=100, baseline=3.0, quantized=3.0 + nll)
    return {"texts": {"nll": changed} | counts}


@pytest.mark.parametrize(
    ("nll", "badge", "colour"),
    [
        (0.0, "non-inferior (within the margins)", "32"),
        (0.02, "undecided", "33"),
        (0.1, "inferior (beyond a margin)", "31"),
    ],
)
def test_the_verdict_comes_first_in_its_colour(monkeypatch, nll, badge, colour):
    shown = io.StringIO()
    out = SafeConsole(file=shown, force_terminal=True, width=60, color_system="standard", highlight=False)
    monkeypatch.setattr(terminal, "console", lambda: out)
    verdict = judge(comparison(nll), MARGINS, METRIC)
    terminal_summary.show_comparison(comparison(nll), verdict, ("b", "a"), METRIC, "the first run")
    head, *rest = shown.getvalue().splitlines()
    assert head == f"Verdict: \x1b[1;{colour}m{badge}\x1b[0m"
    until_table = rest[: next(i for i, line in enumerate(rest) if "a (second) against b (first)" in line)]
    assert " ".join(line.strip() for line in until_table).strip() == f"{verdict.sentence} {verdict.settles}".strip()
    assert f"0.02 nats: \x1b[1;{colour}m{verdict.verdict}\x1b[0m" in " ".join(shown.getvalue().split())


def test_what_has_no_margin_is_shown_with_its_numbers(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda: SafeConsole(file=shown, width=100))
    values = comparison(0.1)["texts"]
    changes = {"texts": {("bits_per_byte" if name == "nll" else name): value for name, value in values.items()}}
    terminal_summary.show_comparison(changes, judge(changes, MARGINS, METRIC), ("b", "a"), METRIC, "the first run")
    assert "bits per byte" in shown.getvalue()


def test_a_narrow_terminal_cuts_no_number(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda: SafeConsole(file=shown, force_terminal=True, color_system=None, width=50))
    changed = comparison(0.1)
    terminal_summary.show_comparison(changed, judge(changed, MARGINS, METRIC), ("b", "a"), METRIC, "the first run")
    table = shown.getvalue().partition("a (second) against b (first)")[2].partition("Mean change")[0]
    assert {"3.0000", "3.1000", "+0.1000", "[+0.0920,", "+0.1080]"} <= set(table.split())
    assert all(len(line) <= 50 for line in table.splitlines())
