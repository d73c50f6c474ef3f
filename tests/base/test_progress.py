from __future__ import annotations

import io
import re
import sys
import threading

import pytest
from rich.console import Console

from bitsure.base import progress, terminal


def test_without_a_terminal_progress_comes_in_lines_with_the_time_left(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("scoring", 40, "choices") as advance:
        for _ in range(6):
            advance(5)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "scoring: 15 of 40 choices, 0:00:12 elapsed, 0:00:20 left",
        "scoring: 30 of 40 choices, 0:00:24 elapsed, 0:00:08 left",
    ]


def test_no_time_is_left_after_more_steps_than_expected(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY", 0)
    with progress.progress("scoring", 2) as advance:
        advance(5)
    assert capsys.readouterr().out.endswith(", 0:00:00 left\n")


def test_progress_stays_visible_while_a_librarys_output_goes_to_a_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "LOG_EVERY", 0)
    with progress.progress("quantizing", None) as advance, terminal.output_to(tmp_path / "log"):
        print("a banner")
        print("a warning", file=sys.stderr)
        advance(1, total=2, note="h.0", unit="blocks")
    shown = capsys.readouterr()
    assert shown.out.startswith("quantizing: 1 of 2 blocks (h.0), ") and "banner" not in shown.out and shown.err == ""
    assert (tmp_path / "log").read_text() == "a banner\na warning\n"


def test_what_takes_long_shows_itself_with_its_time(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SHOW_AFTER", 0)
    monkeypatch.setattr(progress, "REFRESH", 0.01)
    shown = threading.Event()
    monkeypatch.setattr(progress.Console, "print", lambda *given, **how: (print(given[1]), shown.set()))
    with progress.working("check"):
        assert shown.wait(60)
    assert capsys.readouterr().out.splitlines() == ["check: 0:00:00 elapsed", "check: 0:00:00"]


def test_what_is_over_at_once_shows_nothing(capsys):
    with progress.working("check"):
        pass
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_breaks_no_word_and_says_what_is_elapsed_and_what_is_left(width):
    out = io.StringIO()
    bar = progress.Bar(Console(file=out, width=width, force_terminal=True, color_system=None), transient=False)
    bar.add_task("cell 13 of 24: pocket-300k, w4a8kv4: scoring full precision", total=123_456, completed=9_876, unit="choices")
    bar.console.print(*bar.get_renderables(), sep="\n")
    lines = out.getvalue().splitlines()
    assert " ".join(" ".join(lines[:-1]).split()) == "cell 13 of 24: pocket-300k, w4a8kv4: scoring full precision"
    assert re.search(r"9876 of 123456 choices, \d:\d\d:\d\d elapsed", lines[-1]) and all(len(line) <= width for line in lines)


def test_a_step_is_counted_when_its_work_is_done():
    done = []

    def steps():
        for name in "ab":
            yield name
            done.append(f"work of {name}")  # as a walk through blocks, which works when the next one is asked for

    for name in progress.counted(steps(), lambda n: done.append(n)):
        done.append(name)
    assert done == [0, "a", "work of a", 1, "b", "work of b", 1]
