"""Names from outside do not control the terminal."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys

import pytest
from rich.table import Table

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.plain_text import PlainFormatter, ending, without_controls
from tests.builders.stopped_runs import MOST

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


def test_log_lines_and_their_tracebacks_control_nothing():
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(PlainFormatter("%(levelname)s: %(message)s"))
    logger = logging.Logger("of a test")
    logger.addHandler(handler)
    try:
        raise ValueError(NASTY)
    except ValueError:
        logger.exception("%s", NASTY)
    shown = out.getvalue()
    assert "Traceback" in shown and shown.count("owned") >= 2 and without_controls(shown) == shown


PRINTS = """
import sys, warnings
from bitsure.base import terminal
terminal.protect()
terminal.protect()
print(sys.argv[1], "Δ –", sys.stdout.isatty())
warnings.warn(sys.argv[1])
terminal.console().print("[bold]Δ[/bold]", sys.argv[1])
raise ValueError(sys.argv[1])
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_nothing_that_is_printed_controls_the_terminal_or_fails_for_its_encoding(monkeypatch, encoding):
    monkeypatch.setenv("PYTHONIOENCODING", f"{encoding}:strict")
    done = subprocess.run([sys.executable, "-c", PRINTS, NASTY], capture_output=True, timeout=MOST)
    shown, errors = (part.decode(encoding) for part in (done.stdout, done.stderr))
    assert shown.count("task") == 2 and shown.count("Δ" if encoding == "utf-8" else "?") >= 2
    assert errors.count("task") >= 2 and "Error: " in errors and "UnicodeEncodeError" not in errors
    assert without_controls(shown + errors) == shown + errors


def test_a_librarys_progress_bar_may_begin_its_line_again():
    out = io.StringIO()
    terminal.PlainStream(out).writelines(["\r10%", "\r20%\r30%"])
    assert out.getvalue() == "\r10%\r20%�30%"


def test_what_nobody_reads_any_more_is_dropped_and_the_work_goes_on():
    program = (
        "import sys\nfrom bitsure.base import terminal\nterminal.protect()\nprint('a\\n' * 10**6)\n"
        "for _ in range(2):\n    terminal.console().print('a')\nprint('b', file=sys.stderr)"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, timeout=MOST)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"b\n")


@pytest.mark.parametrize(
    ("longest", "end"), [(3, "… ten"), (4, "… ten"), (7, "… and ten"), (8, "… and ten"), (2, "… en"), (13, "one, and\nten")]
)
def test_the_end_of_a_text_begins_at_a_word(longest, end):
    assert ending("one, and\nten", longest).replace("\n", " ") == end.replace("\n", " ")
