"""sweep.html: one file that opens from disk, needs no script and no network, and escapes all text."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bitsure.metrics.metric_names import MACRO
from bitsure.report.page_environment import page_environment
from bitsure.report.tables import number, p_value
from bitsure.sweep.report.cell_results import own_metrics
from bitsure.sweep.report.contrasts import RunContrast
from bitsure.sweep.report.study_row import StudyRow, grouped, task_labels, tasks_of
from bitsure.sweep.report.sweep_report import SweepReport
from bitsure.sweep.report.sweep_statistics import STUDY, ModelSpread

PAPER = {  # the study's own numbers, as its notebook computes them
    "paper_compat/ace": "calibration error (ACE)",
    "paper_compat/conf": "confidence",
    "paper_compat/conf_true": "true-label confidence",
    "paper_compat/entropy": "entropy, bits",
}
MOST_ROWS = 400  # of a table on the page; its CSV has all


def render(report: SweepReport) -> str:
    """Return the page."""
    template = page_environment().from_string(
        files("bitsure.sweep.report").joinpath("sweep_page.html").read_text(encoding="utf-8")
    )
    contrasts, metric = report.contrasts, report.metric
    return template.render(
        title=report.directory.resolve().name,
        states=report.states,
        total=len(report.cells),
        unfinished=[(cell.name, cell.directory.name, cell.state, cell.error or "") for cell in report.cells if not cell.done],
        unplanned=report.unplanned,
        sentences=spread_sentences(report.spreads, metric.alpha),
        study=study_tables(report.models, STUDY | {name: name for name in own_metrics(report.cells)}),
        paper=study_tables(report.models, PAPER),
        pictures=_pictures(report),
        spreads=[_spread_cells(spread) for spread in report.spreads],
        contrasts=[_model_contrast_cells(contrast) for contrast in contrasts.models[:MOST_ROWS]],
        n_contrasts=len(contrasts.models),
        quantizers=[_quantizer_contrast_cells(contrast) for contrast in contrasts.quantizers[:MOST_ROWS]],
        n_quantizers=len(contrasts.quantizers),
        draws=[_draw_cells(row) for row in report.draws[:MOST_ROWS]],
        n_draws=len(report.draws),
        unreadable=contrasts.unreadable,
        level=f"{metric.confidence_level:.0%}",
        alpha=f"{metric.alpha:g}",
    )


def _pictures(report: SweepReport) -> list[dict[str, Any]]:
    return [
        {
            "title": picture.title,
            "caption": picture.caption,
            "name": picture.name,
            "png": base64.b64encode(picture.path.read_bytes()).decode(),
        }
        for picture in report.pictures
    ]


@dataclass(frozen=True)
class StudyTable:
    """The study's table for one quantizer, as text."""

    columns: list[str]
    rows: list[tuple[str, str, list[str]]]  # model (empty below its first row), task, numbers
    paired: bool  # two numbers a column: in full precision and quantized


def study_tables(models: list[StudyRow], metrics: dict[str, str]) -> dict[str, StudyTable]:
    """Return the study's table for each quantizer, a row a model and task.

    Args:
        models: A row for each model, quantizer, task and metric.
        metrics: The metrics of the table and their names on the page.

    Returns:
        Quantizer → table, with a star where the primary test is significant. A sweep of full precision alone has one table.
    """
    rows = [row for row in models if row.metric in metrics]
    quantized = [row for row in rows if not row.is_full_precision]
    shown, paired = (quantized, True) if quantized else (rows, False)
    return {label: _study_table(members, metrics, paired) for label, members in grouped(shown, lambda row: row.label).items()}


def _study_table(rows: list[StudyRow], metrics: dict[str, str], paired: bool) -> StudyTable:
    known = {metric: name for metric, name in metrics.items() if any(row.metric == metric for row in rows)}
    tasks = tasks_of(rows)
    lines: list[tuple[str, str, list[str]]] = []
    for model, members in grouped(rows, lambda row: row.model).items():
        first = True
        for task, name in zip(tasks, task_labels(tasks), strict=True):
            by_metric = {row.metric: row for row in members if row.task == task}
            if by_metric:
                cells = [cell for metric in known for cell in _number_cells(by_metric.get(metric), paired)]
                lines.append((model if first else "", name, cells))
                first = False
    return StudyTable(list(known.values()), lines, paired)


def _number_cells(row: StudyRow | None, paired: bool) -> list[str]:
    if row is None:
        return [""] * (1 + paired)
    value = number(row.value) + row.star
    return [number(row.baseline), value] if paired else [value]


def spread_sentences(spreads: list[ModelSpread], alpha: float) -> list[str]:
    """Return whether models differ in what quantization does to them, a sentence for each quantizer over its tasks."""
    groups: dict[str, list[ModelSpread]] = {}
    for spread in spreads:
        if spread.metric == "true_label_prob" and spread.task != MACRO:
            groups.setdefault(spread.label, []).append(spread)
    return [_spread_sentence(label, members, alpha) for label, members in groups.items()]


def _spread_sentence(label: str, spreads: list[ModelSpread], alpha: float) -> str:
    different = [spread.task for spread in spreads if spread.p_adjusted is not None and spread.p_adjusted < alpha]
    rest = [spread.task for spread in spreads if spread.task not in different]
    smallest, largest = min(spread.smallest for spread in spreads), max(spread.largest for spread in spreads)
    change = f"{label}: the true-label probability changed by {smallest:+.4f} to {largest:+.4f} over models and tasks. "
    if not different:
        return change + "No task shows that models differ in this. This does not prove that they are equal."
    sentence = change + f"Models differ in this by more than their errors explain on {', '.join(different)}"
    if rest:
        return sentence + f"; no difference is shown on {', '.join(rest)}, which does not prove that they are equal there."
    return sentence + "."


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
    tested = p_value(contrast.p_adjusted) if contrast.p_adjusted is not None else ""
    interval = f"[{number(contrast.ci_low, True)}, {number(contrast.ci_high, True)}]"
    pair, n = f"{second} less {first}", f"{contrast.n:,}"
    return common, contrast.task, contrast.metric, pair, n, number(contrast.value, True), interval, tested


def _draw_cells(row: StudyRow) -> tuple[str, ...]:
    models = row.single_model or f"{row.series}, {row.parameters:,} parameters"
    interval = f"[{number(row.delta_ci_low, True)}, {number(row.delta_ci_high, True)}]"
    between = f"{row.delta_between_draws:.4f}"
    return row.label, models, row.task, row.metric, row.draws_label, number(row.delta, True), interval, between
