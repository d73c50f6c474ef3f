"""Log a sweep's summary to Weights & Biases."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bitsure.base.files import write_text
from bitsure.config.schema import TrackingSettings
from bitsure.run.directory import BROKEN_OFF
from bitsure.run.logged_keys import write_keys
from bitsure.run.tracked_artifacts import artifact_name
from bitsure.run.tracked_charts import LineChart
from bitsure.run.wandb_run import RunDescription, WandbRun, open_wandb_run, remembered_id, remove_attempts
from bitsure.sweep.report.choices import badge, reason
from bitsure.sweep.report.fidelity_picture import FIDELITY
from bitsure.sweep.report.run_columns import COSTS
from bitsure.sweep.report.sweep_page import render
from bitsure.sweep.report.sweep_report import SweepReport
from bitsure.sweep.report.sweep_statistics import STUDY

SWEEP = "sweep"  # the summary run's job type
SWEEP_COLUMNS: tuple[str, ...] = (
    *("model", "series", "parameters", "quantizer", "setting", "bits_per_weight", "size_bytes", "task", "metric"),
    *("value", "ci_low", "ci_high", "n", "baseline", "delta", "delta_ci_low", "delta_ci_high", "p_adjusted"),
    *COSTS,
)


def track_sweep(tracking: TrackingSettings, report: SweepReport) -> str | None:
    """Log a sweep's states, tables, charts and page, and all its files as an artifact of its name, as one W&B run.

    It stands in the group of the sweep's cells, and its keys are the same for every sweep.

    Args:
        tracking: Whether and where to log.
        report: The sweep's results; its files are written.

    Returns:
        The run's address, the command that sends it, or what is missing; None where tracking is disabled.
    """
    for cell in report.cells:
        if cell.state in BROKEN_OFF:
            remove_attempts(cell.directory)
    group, log_file = group_of(tracking, report.directory), report.directory / "libraries.log"
    settings = {"cells": [cell.name for cell in report.cells]}
    description = RunDescription(
        name=f"{group}/{SWEEP}",
        group=group,
        job_type=SWEEP,
        tags=[SWEEP, *tracking.tags],
        config=settings,
        notes=tracking.notes,
    )
    with open_wandb_run(tracking, description, report.directory, log_file) as session:
        if run := session.run:
            write_text(report.page, render(report))  # with the address of the run that has just begun
            with session.guarded():
                _log(run, report, group)
    return session.where


def group_of(tracking: TrackingSettings, sweep_dir: Path) -> str:
    """Return the W&B group of a sweep's runs."""
    return tracking.group or sweep_dir.resolve().name


def _log(run: WandbRun, report: SweepReport, group: str) -> None:
    import wandb

    done = report.states.get("done", 0)
    answers = [f"{choice.model.label}: {badge(choice)}. {reason(choice)}" for choice in report.choices]
    run.summary.update({"sweep/choice": "\n".join(answers)})
    rows = [
        [getattr(row, name) for name in SWEEP_COLUMNS] for row in report.models if row.metric in STUDY or row.metric in FIDELITY
    ]
    verdicts = [[cell.name, cell.verdict.verdict, cell.verdict.sentence] for cell in report.cells if cell.verdict]
    charts = {
        f"sweep/{picture.name}": LineChart(picture.title, picture.panels[0]).for_wandb()
        for picture in report.pictures
        if picture.panels[0].series
    }
    counts = {"sweep/cells": len(report.cells), "sweep/done": done, "sweep/not_done": len(report.cells) - done}
    tables = {
        "sweep/table": wandb.Table(columns=list(SWEEP_COLUMNS), data=rows),
        "sweep/verdicts": wandb.Table(columns=["cell", "verdict", "sentence"], data=verdicts),
    }
    logged = counts | charts | tables | {"sweep/report": wandb.Html(str(report.page), inject=False)}
    run.log(logged)
    write_keys(report.directory, [*logged, "sweep/choice"])
    ids = [remembered_id(cell.directory) for cell in report.cells if cell.done]
    records = [artifact_name("records", run_id) for run_id in ids if run_id]
    artifact = wandb.Artifact(artifact_name(SWEEP, group), type=SWEEP, metadata={"group": group, "records": records})
    for name in ("sweep.parquet", "sweep.html"):
        artifact.add_file(str(report.directory / name))
    for name in ("figures", "tables"):
        artifact.add_dir(str(report.directory / name), name=name)
    run.log_artifact(artifact)
    for name in records if not run.offline else ():  # last, since it waits for the server
        with suppress(wandb.errors.CommError, ValueError):  # a cell's run that was not sent has none
            run.use_artifact(f"{name}:latest")
