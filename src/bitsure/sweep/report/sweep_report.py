"""A sweep as one result: sweep.parquet, sweep.html, figures and tables, from what the cells left; finished or not."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

import pyarrow as pa

from bitsure.base import terminal
from bitsure.base.files import write_text
from bitsure.config.report_settings import read_report_settings
from bitsure.config.schema import MetricSettings, TrackingSettings
from bitsure.sweep.report import cell_results as cells
from bitsure.sweep.report import sweep_figures as figures
from bitsure.sweep.report import sweep_page as page
from bitsure.sweep.report import sweep_statistics as statistics
from bitsure.sweep.report import sweep_table as table
from bitsure.sweep.report import sweep_terminal as terminal_table
from bitsure.sweep.report.cell_results import Cell
from bitsure.sweep.report.contrasts import BITS, KINDS, columns, contrasts
from bitsure.sweep.report.picture import Picture

ESTIMATE = ("value", "ci_low", "ci_high", "standard_error", "p_value", "p_adjusted")
OF_A_TEST = ("quantizer", "setting", "task", "metric")
COLUMNS = {  # of tables that a sweep may have nothing for
    "heterogeneity": (*OF_A_TEST, "models", "smallest", "largest", "q", "i_squared", "tau", "p_value", "p_adjusted"),
    **{kind: (*columns(kind), "n", *BITS, *ESTIMATE, "draws") for kind in KINDS},
    "draws": ("model", "series", "parameters", *OF_A_TEST, "delta", "delta_ci_low", "delta_ci_high", "between_draws", "draws"),
}


@dataclass(frozen=True)
class Sweep:
    """What was found in a sweep's directory, and the files that show it."""

    directory: Path
    cells: list[Cell]
    table: pa.Table  # sweep.parquet
    models: list[dict]  # the study's rows: a row a model, quantizer, task and metric, over calibration seeds
    pictures: list[tuple[Picture, Path]]
    page: Path
    strays: list[str]  # directories there of cells that are not of this sweep

    @property
    def states(self) -> dict[str, int]:
        """How many cells are done, failed and so on."""
        return dict(Counter(cell.state for cell in self.cells))


def build(sweep_dir: Path) -> Sweep:
    """Read every cell as it is now and write sweep.parquet, sweep.html, figures/ (PNG and CSV) and tables/ (CSV).

    Numbers come from the cells' metrics.json and comparison.json, the contrasts of models and of quantizers from
    changes.parquet: no records are read and no model is loaded. Raises UserError if there is no cell.
    """
    found = cells.read(sweep_dir)
    numbers, metric = table.build(found), _metric(found)
    level = metric.confidence_level
    wanted = {*statistics.STUDY, *statistics.TESTED, *figures.SHIFT, *page.PAPER}
    models = statistics.over_calibration([row | {"alpha": metric.alpha} for row in statistics.rows(numbers, wanted)], level)
    sizes = statistics.over_training(models, level)
    tested = [row for row in models if row["metric"] in statistics.TESTED]
    between, unread = contrasts(found, metric)
    tables = {
        "study": page.study_numbers(models),
        "heterogeneity": statistics.heterogeneities(tested),
        **between,
        "draws": statistics.draws(models, sizes),
    }
    drawn = _draw(figures.pictures(models, sizes), _folder(sweep_dir, "figures"))
    for name, rows in tables.items():
        write_text(_folder(sweep_dir, "tables") / f"{name}.csv", _csv(rows, COLUMNS.get(name, ())))
    table.write(numbers, sweep_dir / "sweep.parquet")
    made = Sweep(sweep_dir, found, numbers, models, drawn, sweep_dir / "sweep.html", cells.strays(sweep_dir))
    write_text(made.page, page.render(made, tables, unread, metric))
    return made


def finish(sweep_dir: Path) -> Sweep:
    """What a sweep ends with: everything that `build` writes, and a W&B run of it as the cells' own tracking says, if any."""
    from bitsure.sweep.report.sweep_tracking import track_sweep

    made = build(sweep_dir)
    config = next((cell.config["tracking"] for cell in made.cells if "tracking" in cell.config), None)
    if config is not None:
        track_sweep(TrackingSettings(**config), made)
    return made


def show(sweep: Sweep) -> None:
    """Print the headline numbers, what is missing, and where everything is."""
    out = terminal.console()
    out.print(terminal_table.table(sweep.models))
    for cell in sweep.cells:
        if not cell.done:
            out.print(f"{cell.state}: {cell.name}" + (f"\n{indent(cell.error, '    ')}" if cell.error else ""), markup=False)
    states = ", ".join(f"{n} {state}" for state, n in sweep.states.items())
    out.print(f"\n{len(sweep.cells)} cell{'s' * (len(sweep.cells) > 1)}: {states}", markup=False)
    if sweep.strays:
        out.print(f"not of this command, and left out: {', '.join(sweep.strays)}", markup=False)
    for what, where in {"sweep": sweep.page, "numbers": sweep.directory / "sweep.parquet"}.items():
        out.print(f"{what:8} {where}", markup=False, soft_wrap=True)


def _draw(pictures: list[Picture], folder: Path) -> list[tuple[Picture, Path]]:
    """Each as PNG, with its numbers as CSV. What an earlier report drew and this one has nothing for is removed."""
    drawn = [(one, one.draw(folder / f"{one.name}.png")) for one in pictures]
    for picture, path in drawn:
        write_text(path.with_suffix(".csv"), _csv(picture.rows))
    for name in set(figures.NAMES) - {picture.name for picture in pictures}:
        for suffix in (".png", ".csv"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    return drawn


def _metric(found: list[Cell]) -> MetricSettings:
    """The metric settings of the sweep: those of its first finished cell, else the standard ones."""
    done = next((cell for cell in found if cell.done), found[0])
    return read_report_settings(done.directory / "config.yaml")[0]


def _folder(sweep_dir: Path, name: str) -> Path:
    (sweep_dir / name).mkdir(exist_ok=True)
    return sweep_dir / name


def _csv(rows: list[dict], columns: Sequence[str] = ()) -> str:
    """columns: those that are there also without rows."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys([*columns, *(key for row in rows for key in row)])))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
