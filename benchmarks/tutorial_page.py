"""The figures of docs/tutorial.md: `make tutorial ARGS=multirun/real_models` writes them between its comments.

From a finished run of sweeps/real_models.yaml: each cell's verdict and changes, and what full precision's own records say as
the study reads them and divided by the number of tokens.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from itertools import chain
from pathlib import Path

from benchmarks.markdown_table import markdown_table
from benchmarks.regions import write_from_sweep
from benchmarks.systems import number_cell
from bitsure.base.byte_sizes import decimal_size
from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from bitsure.config.report_settings import read_report_settings
from bitsure.metrics.metric_names import MACRO
from bitsure.metrics.run_metrics import measure
from bitsure.records.saved_run import read_own_baseline
from bitsure.report.rounded import RoundedPart, rounded_parts
from bitsure.sweep.report.cell_results import CellResult, read_cells

PAGE = PROJECT / "docs" / "tutorial.md"
CHANGES = {"accuracy": "accuracy", "true_label_prob": "true-label prob.", "confidence": "confidence", "nll": "NLL, nats"}
LEVELS = {"accuracy": "accuracy", "confidence": "confidence", "nll": "NLL"}
NORMALIZATIONS = {"none": "summed", "token": "by token"}


def main() -> None:
    """Fill the page."""
    write_from_sweep(__doc__, PAGE, regions)


def regions(sweep: Path) -> dict[str, list[str]]:
    """Return region of the page → its lines. Raises UserError if a cell of the sweep is not done."""
    cells = read_cells(sweep)
    if waiting := [cell.name for cell in cells if not (cell.done and cell.comparison)]:
        raise UserError(f"{sweep}: {len(waiting)} cells are not done, such as {waiting[0]}. Run the sweep again first.")
    of_model = {cell.model_name: cell for cell in cells}
    shown = max(
        (cell for cell in cells if cell.model_name == cells[0].model_name), key=lambda cell: cell.quantization.relative_error
    )
    return {
        "verdict": _verdict_lines(shown),
        "cells": markdown_table(
            ["model", "quantizer", "bits per weight", "rounding error", "size", "verdict"], map(_cell_row, cells)
        ),
        "changes": markdown_table(
            ["model", "task", "quantizer", *(f"change of {name}" for name in CHANGES.values()), "adjusted p"],
            chain.from_iterable(_change_rows(cell) for cell in cells),
        ),
        "levels": markdown_table(
            [
                "model",
                "task",
                "tokens of a choice",
                *(f"{name}, {how}" for how in NORMALIZATIONS.values() for name in LEVELS.values()),
            ],
            chain.from_iterable(_level_rows(name, cell) for name, cell in of_model.items()),
        ),
    }


def _verdict_lines(cell: CellResult) -> list[str]:
    """Return the verdict as the run prints it."""
    verdict = cell.verdict
    words = [f"Verdict: {verdict.verdict}", verdict.sentence, verdict.settles, "", f"{weights_of(cell).sentence}."]
    return ["```text", *chain.from_iterable(textwrap.wrap(each, 120) or [""] for each in words), "```"]


def weights_of(cell: CellResult) -> RoundedPart:
    return rounded_parts(cell.quantization, cell.model)[0]


def _cell_row(cell: CellResult) -> list[str]:
    weights = weights_of(cell)
    return [
        cell.model_name,
        cell.quantizer,
        f"{weights.bits:.2f}",
        f"{weights.error:.1%}",
        f"{decimal_size(weights.bytes)} instead of {decimal_size(weights.full_bytes)}",
        cell.verdict.verdict,
    ]


def _change_rows(cell: CellResult) -> list[list[str]]:
    return [
        [
            cell.model_name,
            task,
            cell.quantizer,
            *(number_cell(numbers[name]) for name in CHANGES),
            f"{numbers['true_label_prob'].p_adjusted:.3f}",
        ]
        for task, numbers in cell.comparison.items()
        if task != MACRO
    ]


def _level_rows(model: str, cell: CellResult) -> list[list[str]]:
    """Return full precision's levels on each task, by each normalization."""
    settings, _ = read_report_settings(cell.directory / "config.yaml")
    records = read_own_baseline(cell.directory).records
    levels = [measure(records, replace(settings, normalization=how)) for how in NORMALIZATIONS]
    tokens = records.to_pandas().explode("choice_tokens").groupby("task")["choice_tokens"].mean()
    return [
        [model, task, f"{tokens[task]:.0f}", *(f"{numbers[task][name].value:.2f}" for numbers in levels for name in LEVELS)]
        for task in levels[0]
        if task != MACRO
    ]


if __name__ == "__main__":
    main()
