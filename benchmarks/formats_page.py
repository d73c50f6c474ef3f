"""The table of docs/formats.md: `make formats ARGS=multirun/formats` writes it between its comments.

From a finished run of sweeps/formats.yaml. What a text and the tasks say of each format beside full precision, at the bits of
its real weights and the bytes of the whole model: comparison.json's numbers.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.markdown_table import markdown_table
from benchmarks.regions import write_from_sweep
from benchmarks.systems import number_cell
from bitsure.base.byte_sizes import decimal_size
from bitsure.base.errors import UserError
from bitsure.comparison.published_numbers import TEXT
from bitsure.config.paths import PROJECT
from bitsure.metrics.metric_names import ECE, MACRO
from bitsure.results.measurement import Measurement
from bitsure.sweep.report.cell_results import CellResult, read_cells
from bitsure.sweep.report.sweep_table import columns_of_cells

PAGE = PROJECT / "docs" / "formats.md"
OF_TEXT = {"kl_divergence": ("KL divergence, nats a token", ".3g"), "perplexity_ratio": ("perplexity ratio", ".4f")}
OF_TASKS = {"true_label_prob": "true-label prob.", "accuracy": "accuracy", ECE: "calibration error"}


def main() -> None:
    """Fill the page."""
    write_from_sweep(__doc__, PAGE, lambda sweep: {"formats": lines(sweep)})


def lines(sweep: Path) -> list[str]:
    """What was measured, a row a format, the one with the most bits first, and what was skipped.

    Raises UserError if no cell is done, or one is neither done nor skipped.
    """
    cells = read_cells(sweep)
    if waiting := [cell.name for cell in cells if not cell.done and cell.state != "skipped"]:
        raise UserError(f"{sweep}: {len(waiting)} cells are not done, such as {waiting[0]}. Run the sweep again first.")
    done = sorted((cell for cell in cells if cell.done and cell.comparison), key=lambda cell: -_bits(cell))
    if not done:
        raise UserError(f"{sweep}: no cell of it quantizes a model.")
    sizes = {columns.quantizer_label: columns.size_bytes for columns in columns_of_cells(done)}
    rows = [_row(cell, sizes[columns.quantizer_label]) for cell, columns in zip(done, columns_of_cells(done), strict=True)]
    skipped = ", ".join(cell.quantizer for cell in cells if cell.state == "skipped")
    return [
        _about(done[0]),
        "",
        *markdown_table(
            ["format", "bits per weight", "bytes", *(title for title, _ in OF_TEXT.values()), *OF_TASKS.values()], rows
        ),
        *(["", f"Skipped, because their libraries were not installed: {skipped}."] if skipped else []),
    ]


def _bits(cell: CellResult) -> float:
    return cell.quantization.bits_per_weight if cell.quantization else 0.0


def _row(cell: CellResult, size: float | None) -> list[str]:
    text = next((values for task, values in cell.comparison.items() if task.startswith(TEXT)), {})
    of_tasks = [values for task, values in cell.comparison.items() if not task.startswith(TEXT)]
    tasks = cell.comparison.get(MACRO) or next(iter(of_tasks), {})  # one task has no mean over tasks
    compared = [_cell(text.get(metric), form) for metric, (_, form) in OF_TEXT.items()]
    return [
        cell.quantizer,
        f"{_bits(cell):.2f}",
        decimal_size(size),
        *compared,
        *(_cell(tasks.get(metric)) for metric in OF_TASKS),
    ]


def _cell(number: Measurement | None, form: str = "+.3f") -> str:
    return "" if number is None else number_cell(number, form)


def _about(cell: CellResult) -> str:
    asked = [numbers["accuracy"].n for task, numbers in cell.metrics.items() if task != MACRO and "accuracy" in numbers]
    documents = next((numbers["nll"].n for task, numbers in cell.metrics.items() if task.startswith(TEXT)), 0)
    return f"{cell.model_name}: text of {documents:,} documents, {sum(asked):,} questions of {len(asked)} tasks."


if __name__ == "__main__":
    main()
