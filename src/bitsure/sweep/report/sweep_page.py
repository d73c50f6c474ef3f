"""Render sweep.html: one file that opens from disk, needs no network and no script, and escapes all text."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitsure.report.page import LARGEST
from bitsure.report.page_environment import page_template
from bitsure.report.tables import number, p_value
from bitsure.report.tracked_run import tracked_at
from bitsure.sweep.report import contrast_words, sweep_head, swept
from bitsure.sweep.report.choices import summary
from bitsure.sweep.report.contrasts import RunContrast
from bitsure.sweep.report.fidelity_picture import FIDELITY
from bitsure.sweep.report.picture import Picture
from bitsure.sweep.report.results_table import results_table
from bitsure.sweep.report.run_columns import own_metrics
from bitsure.sweep.report.study_row import StudyRow
from bitsure.sweep.report.study_tables import PAPER, study_tables
from bitsure.sweep.report.sweep_report import SweepReport
from bitsure.sweep.report.sweep_statistics import STUDY, ModelSpread
from bitsure.sweep.report.sweep_table import columns_of_cells
from bitsure.sweep.report.verdict_matrix import verdict_matrix

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_ROWS = 400  # of a table on the page; its CSV has all
# what the page of a very large sweep leaves out, the first thing first, and where it is instead
DISPENSABLE = {
    "paper": "the study's numbers as published (in tables/study.csv)",
    "study": "the study's table (in tables/study.csv)",
    "pictures": "pictures (in figures/)",
}
ROOM_FOR_PANELS = 2_500_000  # bytes of panels whose marks can be pointed at; a page has at most 5 MB


def render(report: SweepReport) -> str:
    """Return the page's HTML, without as many DISPENSABLE parts, which it names, as stay below LARGEST bytes demands.

    It is larger if what is left is.
    """
    shown = _pictures(report)
    for n in range(len(DISPENSABLE) + 1):
        html = _render(report, shown, tuple(DISPENSABLE)[:n])
        if len(html.encode()) < LARGEST:
            break
    return html


def _render(report: SweepReport, pictures: list[_Shown], without: Collection[str]) -> str:
    template = page_template("bitsure.sweep.report", "sweep_page.html")
    metric = report.metric
    own = {name: name for name in own_metrics(report.cells)}
    return template.render(
        contents=[],
        title=swept.sweep_title(report.cells),
        name=report.directory.resolve().name,
        tasks=swept.tasks_asked(report.cells),
        tracked=tracked_at(report.directory) or "",
        send=swept.send_command(report.directory, report.cells),
        states=report.states,
        total=len(report.cells),
        date=sweep_head.dates(report.cells),
        summary=summary(report.choices),
        choices=[sweep_head.head_choice(choice) for choice in report.choices],
        candidate_columns=sweep_head.CANDIDATE_COLUMNS,
        matrix=verdict_matrix(report.cells),
        results=results_table(report.models),
        unfinished=[(cell.name, cell.path, cell.state_in_words, cell.error or "") for cell in report.cells if not cell.done],
        unplanned=report.unplanned,
        study={} if "study" in without else study_tables(report.models, STUDY | FIDELITY | own),
        paper={} if "paper" in without else study_tables(report.models, PAPER),
        pictures=[] if "pictures" in without else pictures,
        without=[DISPENSABLE[part] for part in without],
        level=f"{metric.confidence_level:.0%}",
        alpha=f"{metric.alpha:g}",
        **_words(report),
        **_tables(report),
    )


@dataclass(frozen=True)
class _Shown:
    """A picture as the page shows it: its panels, or the PNG where there is no room for them."""

    picture: Picture
    panels: list[Markup]
    png: str


def _pictures(report: SweepReport) -> list[_Shown]:
    """Return the pictures; one for which there is no room is a PNG, whose marks cannot be pointed at."""
    room, shown = ROOM_FOR_PANELS, []
    for picture in report.pictures:
        panels = [chart.html for chart in picture.page_panels] if room > 0 else []
        size = sum(len(panel.encode()) for panel in panels)
        fits = 0 < size <= room
        room -= size if fits else 0
        png = "" if fits else base64.b64encode(report.png(picture).read_bytes()).decode()
        shown.append(_Shown(picture, panels if fits else [], png))
    return shown


def _words(report: SweepReport) -> dict[str, Any]:
    """Return what the contrasts show, in sentences."""
    error = 1 - report.metric.confidence_level
    runs = [columns for columns in columns_of_cells(report.cells) if not columns.is_full_precision]
    return {
        "spread_sentences": contrast_words.spread_sentences(report.spreads, report.metric.alpha),
        "model_sentences": contrast_words.model_sentences(report.contrasts, error),
        "quantizer_sentences": contrast_words.quantizer_sentences(report.contrasts, error),
        "no_contrasts": contrast_words.why_no_contrasts(report.contrasts, runs),
        "unreadable": report.contrasts.unreadable,
    }


def _tables(report: SweepReport) -> dict[str, Any]:
    """Return the tables of statistics."""
    models, quantizers, draws = report.contrasts.models, report.contrasts.quantizers, report.draws
    return {
        "spreads": [_spread_cells(spread) for spread in report.spreads],
        "contrasts": [_model_contrast_cells(contrast) for contrast in models[:MOST_ROWS]],
        "n_contrasts": len(models),
        "quantizers": [_quantizer_contrast_cells(contrast) for contrast in quantizers[:MOST_ROWS]],
        "n_quantizers": len(quantizers),
        "draws": [_draw_cells(row) for row in draws[:MOST_ROWS]],
        "n_draws": len(draws),
    }


def _spread_cells(spread: ModelSpread) -> tuple[str, ...]:
    changes = f"{number(spread.smallest, True)} … {number(spread.largest, True)}"
    tested = p_value(spread.p_adjusted) if spread.p_adjusted is not None else ""
    numbers = (f"{spread.q:.1f}", tested, f"{spread.i_squared:.0%}", f"{spread.tau:.4f}")
    return spread.label, spread.task, spread.metric, str(spread.models), changes, *numbers


def _model_contrast_cells(contrast: RunContrast) -> tuple[str, ...]:
    return _contrast_cells(contrast.first.label, contrast.first.model, contrast.second.model, contrast)


def _quantizer_contrast_cells(contrast: RunContrast) -> tuple[str, ...]:
    return _contrast_cells(contrast.first.model, contrast.first.label, contrast.second.label, contrast)


def _contrast_cells(common: str, first: str, second: str, contrast: RunContrast) -> tuple[str, ...]:
    """Return a table's row; common: what the two runs share; first: the run whose change is subtracted."""
    if contrast.calib_seed not in (None, 0):
        common += f", calibration seed {contrast.calib_seed}"
    if contrast.draws > 1:
        common += f", {contrast.draws} calibration seeds"
    tested = p_value(contrast.p_value) if contrast.p_value is not None else ""
    adjusted = p_value(contrast.p_adjusted) if contrast.p_adjusted is not None else ""
    interval = f"[{number(contrast.ci_low, True)}, {number(contrast.ci_high, True)}]"
    pair, n = f"{second} less {first}", f"{contrast.n:,}"
    return common, contrast.task, contrast.metric, pair, n, number(contrast.value, True), interval, tested, adjusted


def _draw_cells(row: StudyRow) -> tuple[str, ...]:
    models = row.single_model or f"{row.series}, {row.parameters:,} parameters"
    interval = f"[{number(row.delta_ci_low, True)}, {number(row.delta_ci_high, True)}]"
    between = f"{row.delta_between_draws:.4f}"
    return row.label, models, row.task, row.metric, row.draws_label, number(row.delta, True), interval, between
