"""Making a sweep's report from what its cells left, finished or not: sweep.parquet, sweep.html, figures and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bitsure.base.files import make_folder, write_text
from bitsure.config.metric import MetricSettings
from bitsure.config.report_settings import read_report_settings
from bitsure.config.schema import TrackingSettings, VerdictSettings
from bitsure.metrics.retrieval_metrics import place_in_name
from bitsure.results import check
from bitsure.sweep.report.cell_changes import CellChanges
from bitsure.sweep.report.cell_results import CellResult, read_cells, unplanned
from bitsure.sweep.report.choices import choose_for_models
from bitsure.sweep.report.contrasts import MODELS, QUANTIZERS, build_contrasts
from bitsure.sweep.report.fidelity_picture import FIDELITY, without_choices_fidelity
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.run_columns import own_metrics
from bitsure.sweep.report.shift_picture import SHIFT
from bitsure.sweep.report.study_row import study_rows
from bitsure.sweep.report.study_tables import PAPER
from bitsure.sweep.report.sweep_csv import contrasts_csv, draws_csv, picture_csv, spreads_csv, study_csv
from bitsure.sweep.report.sweep_figures import NAMES, pictures
from bitsure.sweep.report.sweep_page import render
from bitsure.sweep.report.sweep_report import SweepReport
from bitsure.sweep.report.sweep_statistics import (
    STUDY,
    TESTED,
    means_over_draws,
    model_spreads,
    over_calibration,
    over_training,
)
from bitsure.sweep.report.sweep_table import build_table, write_table


def build_sweep_report(sweep_dir: Path) -> SweepReport:
    """Read every cell as it is now and write sweep.parquet, sweep.html, figures/ (PNG and CSV) and tables/ (CSV).

    Numbers come from the cells' metrics.json and comparison.json, the contrasts of models and of quantizers from
    changes.parquet: no records are read and no model is loaded.

    Args:
        sweep_dir: The sweep's directory; cells may be missing, running or failed.

    Raises:
        UserError: If there is no cell, or two cells cannot be told apart.
    """
    cells = read_cells(sweep_dir)
    metric, verdict = _settings(cells)
    table, changes = build_table(cells), CellChanges()
    placed = [name for name in table["metric"].unique().to_pylist() if name and place_in_name(name)]
    rows = without_choices_fidelity(
        study_rows(table, {*STUDY, *TESTED, *FIDELITY, *SHIFT, *PAPER, *placed, *own_metrics(cells)}, metric.alpha)
    )
    models = over_calibration(rows, metric.confidence_level)
    sizes = over_training(models, metric.confidence_level)
    for name in ("figures", "tables"):
        make_folder(sweep_dir / name)
    report = SweepReport(
        directory=sweep_dir,
        metric=metric,
        cells=cells,
        unplanned=unplanned(sweep_dir),
        table=table,
        models=models,
        spreads=model_spreads([row for row in models if row.metric in TESTED]),
        contrasts=build_contrasts(cells, metric, changes),
        choices=choose_for_models(cells, changes, metric, verdict.accuracy_margin),
        draws=means_over_draws(models, sizes),
        pictures=pictures(cells, models, sizes, verdict.accuracy_margin),
    )
    _write_pictures(report.pictures, sweep_dir / "figures")
    _write_tables(report)
    write_table(table, sweep_dir / "sweep.parquet")
    write_text(report.page, render(report))
    return report


def finish_sweep(sweep_dir: Path) -> SweepReport:
    """Write everything that `build_sweep_report` writes, and log a W&B run of it if the cells are tracked."""
    from bitsure.sweep.report.sweep_tracking import track_sweep

    report = build_sweep_report(sweep_dir)
    settings = next((cell.config["tracking"] for cell in report.cells if "tracking" in cell.config), None)
    if settings is not None:
        return replace(report, tracked=track_sweep(check(settings, TrackingSettings, "tracking"), report))
    return report


def _settings(cells: list[CellResult]) -> tuple[MetricSettings, VerdictSettings]:
    """Return the sweep's metric and verdict settings: those of its first finished cell, else the standard ones."""
    done = next((cell for cell in cells if cell.done), None)
    return read_report_settings(done.directory / "config.yaml" if done else None)


def _write_tables(report: SweepReport) -> None:
    shown = {*STUDY, *FIDELITY, *PAPER, *own_metrics(report.cells)}
    tables = {
        "study": study_csv([row for row in report.models if row.metric in shown]),
        "heterogeneity": spreads_csv(report.spreads),
        MODELS.name: contrasts_csv(report.contrasts.models, MODELS),
        QUANTIZERS.name: contrasts_csv(report.contrasts.quantizers, QUANTIZERS),
        "draws": draws_csv(report.draws),
    }
    for name, text in tables.items():
        write_text(report.directory / "tables" / f"{name}.csv", text)


def _write_pictures(drawn: list[Picture], folder: Path) -> None:
    """Write each picture and its numbers as CSV, and remove pictures of an earlier report that this one does not have."""
    for picture in drawn:
        picture.save(folder)
        write_text(folder / f"{picture.name}.csv", picture_csv(picture))
    for name in set(NAMES) - {picture.name for picture in drawn}:
        for suffix in (".png", ".csv"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
