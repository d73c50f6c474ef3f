from __future__ import annotations

import sys

from bitsure.base import terminal


def test_without_a_terminal_progress_comes_in_lines_with_the_time_left(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with terminal.progress("scoring", 40) as advance:
        for _ in range(6):
            advance(5)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["scoring: 15 of 40, 20 s left", "scoring: 30 of 40, 8 s left"]


def test_progress_stays_visible_while_a_librarys_output_goes_to_a_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(terminal, "LOG_EVERY", 0)
    with terminal.progress("quantizing", None) as advance, terminal.output_to(tmp_path / "log"):
        print("a banner")
        print("a warning", file=sys.stderr)
        advance(1, total=2)
    shown = capsys.readouterr()
    assert shown.out.startswith("quantizing: 1 of 2") and "banner" not in shown.out and shown.err == ""
    assert (tmp_path / "log").read_text() == "a banner\na warning\n"
