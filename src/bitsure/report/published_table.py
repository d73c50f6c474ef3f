"""Published numbers beside those of a run: always two columns, and what the two do not have in common."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bitsure.results import PublishedNumber

COLUMNS = ("task", "metric", "setting", "published", "measured", "interval", "n")
HEADING = "Published by others, beside what was measured here"


def rows(found: list[PublishedNumber]) -> list[tuple[str, ...]]:
    """A row of strings for each number, on the published scale."""
    return [
        (
            one.task,
            one.metric if one.scale == 1 else f"{one.metric} × {one.scale:g}",
            one.setting,
            f"{one.published:.2f}",
            f"{one.measured.value:.2f}",
            "" if one.measured.ci_low is None else f"[{one.measured.ci_low:.2f}, {one.measured.ci_high:.2f}]",
            f"{one.n:,}",
        )
        for one in found
    ]


def notes(found: list[PublishedNumber]) -> list[str]:
    """What the numbers of a row have in common, what they do not, and where the published one is from; each sentence once."""
    said: dict[str, list[str]] = {}  # by what is said, the tasks of which it is
    for one in found:
        differs = f"; but {', '.join(one.differs)}" if one.differs else ""
        what = f"the same {', '.join(one.same)}{differs}. Published: {one.note}. {one.source}."
        said.setdefault(what, []).append(f"{one.task} {one.setting}")
    return [f"{', '.join(of)}: {what}" for what, of in said.items()]


def show(out: Console, found: list[PublishedNumber]) -> None:
    """The table and its notes on a terminal; intervals are on the page."""
    table = Table(title=HEADING, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    kept = [COLUMNS.index(name) for name in ("task", "metric", "setting", "published", "measured")]
    for i in kept:
        table.add_column(COLUMNS[i], justify="right" if i > 2 else "left", no_wrap=True)
    for row in rows(found):
        table.add_row(*(escape(row[i]) for i in kept))
    out.print(table)
    for sentence in notes(found):
        out.print(f"- {sentence}", markup=False, soft_wrap=True)
