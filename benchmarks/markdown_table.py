"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Row = Mapping[str, object]
"""Column → what stands there."""


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table."""
    columns = list(columns)
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def markdown_of(rows: Sequence[Row]) -> str:
    """Return the table of rows that have the same columns."""
    return "\n".join(markdown_table(rows[0], (map(str, row.values()) for row in rows)))
