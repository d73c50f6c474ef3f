"""Model × quantizer: what came of each cell of a sweep, with the way to its report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bitsure.report.tracked_run import ADDRESS, tracked_at
from bitsure.results.verdict import Verdict
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.run_columns import CellColumns
from bitsure.sweep.report.sweep_table import columns_of_cells

MOST_COLUMNS = 8  # that fit a page in words; beyond that an entry is a sign
SIGNS = {"non-inferior": "✓", "inferior": "✗", "undecided": "?", "not judged": "–", "done": "•"}
UNFINISHED = "!"


@dataclass(frozen=True)
class MatrixEntry:
    """One cell.

    Attributes:
        state: Its verdict; where it has none, its state.
        explanation: The verdict in a sentence, or the error's first line.
        link: Where its report lies, seen from the sweep's page; empty where it has none.
        differs_by: What tells it from other cells of the same model and quantizer, such as its calibration seed.
        tracked: The address of its W&B run; empty where it has none.
    """

    state: str
    explanation: str
    link: str
    differs_by: str
    tracked: str

    @property
    def sign(self) -> str:
        """The state as one character."""
        return SIGNS.get(self.state, UNFINISHED)


@dataclass(frozen=True)
class VerdictMatrix:
    """All cells: the rows are models and the columns quantizers, or the other way round where that fits a page better.

    Attributes:
        corner: What the rows are.
        columns: The columns' names.
        rows: Row → column → its cells, of which there may be none or several.
        in_words: Whether there is room for words; else for signs alone.
    """

    corner: str
    columns: list[str]
    rows: dict[str, dict[str, list[MatrixEntry]]] = field(default_factory=dict)
    in_words: bool = True

    @property
    def signs(self) -> dict[str, str]:
        """State → sign, of every state that is in it."""
        return {entry.state: entry.sign for row in self.rows.values() for entries in row.values() for entry in entries}


def verdict_matrix(cells: Sequence[CellResult]) -> VerdictMatrix:
    """Return what came of each cell; models and quantizers stand in the order in which the command gave them.

    Args:
        cells: All cells of a sweep, finished or not.
    """
    of_cells = columns_of_cells(list(cells))
    models = _distinct(_model(columns) for columns in of_cells)
    quantizers = _distinct(columns.quantizer_label for columns in of_cells)
    rows_are_models = len(quantizers) <= max(MOST_COLUMNS, len(models))
    rows, columns_ = (models, quantizers) if rows_are_models else (quantizers, models)
    matrix = VerdictMatrix(
        corner="model" if rows_are_models else "quantizer",
        columns=columns_,
        rows={row: {column: [] for column in columns_} for row in rows},
        in_words=len(columns_) <= MOST_COLUMNS,
    )
    tasks = {tuple(cell.tasks) for cell in cells if cell.tasks}
    for cell, columns in zip(cells, of_cells, strict=True):
        place = (_model(columns), columns.quantizer_label)
        row, column = place if rows_are_models else place[::-1]
        seed = f"seed {columns.calib_seed}" if columns.calib_seed else ""
        asked = ", ".join(cell.tasks) if len(tasks) > 1 else ""
        matrix.rows[row][column].append(_entry(cell, ", ".join(filter(None, (seed, asked)))))
    return matrix


def _entry(cell: CellResult, differs_by: str) -> MatrixEntry:
    verdict, tracked = cell.verdict, tracked_at(cell.directory) or ""
    places = (cell.report_link, differs_by, tracked if tracked.startswith(ADDRESS) else "")
    if not cell.done:
        return MatrixEntry(cell.state_in_words, (cell.error or "").partition("\n")[0], *places)
    if verdict is None:
        return MatrixEntry("done", "no verdict", *places)
    return MatrixEntry(verdict.verdict, _sentence(verdict), *places)


def _sentence(verdict: Verdict) -> str:
    """Return the verdict in words; those of earlier versions have words for single tasks alone."""
    return f"{verdict.sentence} {verdict.settles}".strip() or " ".join(task.sentence for task in verdict.tasks.values())


def _model(columns: CellColumns) -> str:
    return f"{columns.model}, {columns.conditions}" if columns.conditions else columns.model


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
