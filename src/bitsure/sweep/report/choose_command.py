"""Answer from a sweep: which is the smallest quantizer of each model that may be shipped?"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.config.report_settings import read_report_settings
from bitsure.sweep.report.cell_changes import CellChanges
from bitsure.sweep.report.cell_results import read_cells
from bitsure.sweep.report.choices import (
    BY_ACCURACY,
    MORE_QUESTIONS,
    OWN_VERDICT,
    ModelChoice,
    badge,
    choose_for_models,
    notes,
    others,
    reason,
)

COLUMNS = ("quantizer", "MB", "bits", "change of accuracy", BY_ACCURACY, OWN_VERDICT, MORE_QUESTIONS)
WIDTH = 116  # characters of a table that is not printed to a terminal


def choose_quantizers(sweep_dir: Path, max_bytes: int | None = None, margin: float | None = None) -> None:
    """Print each model's smallest quantizer whose loss of accuracy is surely within the margin, and all others.

    Args:
        sweep_dir: The sweep's directory; cells may be missing, running or failed.
        max_bytes: The largest size on disk that may be chosen; None for any.
        margin: The largest loss of accuracy that is small enough to ship; None for `verdict.accuracy_margin` of the sweep.

    Raises:
        UserError: If the directory is not a sweep's, it has no quantized model, or an option is not above 0.
    """
    if max_bytes is not None and max_bytes < 1:
        raise UserError(f"--max-bytes {max_bytes}: a whole number above 0.")
    if margin is not None and not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a loss of accuracy between 0 and 1, such as 0.01.")
    cells = read_cells(sweep_dir)
    done = next((cell for cell in cells if cell.done), None)
    metric, verdict = read_report_settings(done.directory / "config.yaml" if done else None)
    margin = verdict.accuracy_margin if margin is None else margin
    choices = choose_for_models(cells, CellChanges(), metric, margin, max_bytes)
    if not choices:
        raise UserError(f"{sweep_dir} holds no quantized model to choose.")
    out = terminal.console()
    if not out.is_terminal:
        out.width = max(out.width, WIDTH)
    for i, choice in enumerate(choices):
        above = "\n" if i else ""
        out.print(f"{above}{choice.model.label}: {_answer(choice)}", markup=False)
        if choice.choice is not None:
            terminal.show_table(out, _table(choice))
        for note in notes(choice):
            out.print(note, markup=False)


def _answer(choice: ModelChoice) -> str:
    where = ""
    if choice.chosen:
        where = f" It is in {', '.join(cell.directory.name for cell in choice.chosen.candidate.cells)}."
    rest = "".join(f" {what}: {candidates}." for what, candidates in others(choice))
    return f"{badge(choice)}. {reason(choice)}{where}{rest}"


def _table(choice: ModelChoice) -> Table:
    table = Table(title=f"changes {choice.over}", title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for i, name in enumerate(COLUMNS):
        number = 0 < i < 4 or i > 5
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=i == 3)
    for judged in choice.judged:
        size, bits = judged.candidate.columns.size_bytes, judged.candidate.columns.bits_per_weight
        cells = (
            judged.label,
            "–" if size is None else f"{size / 1e6:.3g}",
            "–" if bits is None else f"{bits:.2f}",
            *judged.answers,
            judged.more_questions,
        )
        table.add_row(*map(escape, cells))
    return table
