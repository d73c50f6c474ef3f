"""Names from outside do not control the terminal."""

from __future__ import annotations

import pytest
from rich.table import Table

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.plain_text import without_controls

NASTY = "\x1b]0;owned\x07\x1b[2Jtask\u202egnp\u2066\x9b31m\r"


def test_ordinary_text_is_kept():
    text = "naïve – ŷ 任务\tשלום مرحبا 👩‍🔬\nnext"
    assert without_controls(text) == text and without_controls("a\r\nb") == "a\nb"


@pytest.mark.parametrize("bad", ["\x1b", "\x07", "\x9b", "\x7f", "\u202e", "\u2066", "\u200f", "\u2028"])
def test_a_control_is_shown_and_not_obeyed(bad):
    assert without_controls(f"a{bad}b") == "a�b"
    assert str(UserError(f"a{bad}b", "c")) == "a�b\nc"


def test_the_console_obeys_no_name(capsys):
    table = Table(title=NASTY)
    table.add_column(NASTY)
    table.add_row(NASTY)
    out = terminal.console()
    out.print(table)
    out.print(NASTY, markup=False, soft_wrap=True)
    shown = capsys.readouterr().out
    assert "task" in shown and without_controls(shown) == shown


def test_a_terminal_still_has_its_own_colours():
    out = terminal.SafeConsole(force_terminal=True, color_system="standard")
    with out.capture() as captured:
        out.print("[bold]plain[/bold] \x1b[2J")
    assert captured.get().startswith("\x1b[1mplain") and "\x1b[2J" not in captured.get()
