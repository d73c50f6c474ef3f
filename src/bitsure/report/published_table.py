"""Show published numbers next to those of a run, and how the two set-ups differ."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bitsure.results import PublishedNumber

COLUMNS = ("task", "metric", "setting", "published", "measured", "interval", "n")
TERMINAL_COLUMNS = ("task", "metric", "setting", "published", "measured")  # intervals would not fit; the page has them
HEADING = "Published by others, beside what was measured here"


def rows(numbers: Sequence[PublishedNumber]) -> list[tuple[str, ...]]:
    """Return a row of strings under COLUMNS for each number, on the published scale."""
    return [
        (
            number.task,
            number.metric if number.scale == 1 else f"{number.metric} × {number.scale:g}",
            number.setting,
            f"{number.published:.2f}",
            f"{number.measured.value:.2f}",
            "" if number.measured.ci_low is None else f"[{number.measured.ci_low:.2f}, {number.measured.ci_high:.2f}]",
            f"{number.n:,}",
        )
        for number in numbers
    ]


def notes(numbers: Sequence[PublishedNumber]) -> list[str]:
    """Return what a published number and ours have in common, what not, and its source; equal notes are one sentence."""
    rows_by_note: dict[str, list[str]] = {}
    for number in numbers:
        differs = f"; but {', '.join(number.differs)}" if number.differs else ""
        note = f"the same {', '.join(number.same)}{differs}. Published: {number.note}. {number.source}."
        rows_by_note.setdefault(note, []).append(f"{number.task} {number.setting}")
    return [f"{', '.join(row_names)}: {note}" for note, row_names in rows_by_note.items()]


def show(out: Console, numbers: Sequence[PublishedNumber]) -> None:
    """Print the table and its notes."""
    table = Table(title=HEADING, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    places = [COLUMNS.index(name) for name in TERMINAL_COLUMNS]
    for i in places:
        table.add_column(COLUMNS[i], justify="right" if i > 2 else "left", no_wrap=True)
    for row in rows(numbers):
        table.add_row(*(escape(row[i]) for i in places))
    out.print(table)
    for note in notes(numbers):
        out.print(f"- {note}", markup=False, soft_wrap=True)
