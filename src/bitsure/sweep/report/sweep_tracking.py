"""Log a sweep's summary to Weights & Biases."""

from __future__ import annotations

from bitsure.base.files import write_text
from bitsure.config.schema import TrackingSettings
from bitsure.run.directory import BROKEN_OFF
from bitsure.run.wandb_run import RunDescription, WandbRun, open_wandb_run, remove_attempts
from bitsure.sweep.report.choices import badge, reason
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
    """Log a sweep's states, its table and figures, and all its files as an artifact, as one W&B run.

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
    group, log_file = tracking.group or report.directory.resolve().name, report.directory / "libraries.log"
    cells = {"cells": [cell.name for cell in report.cells]}
    description = RunDescription(name=f"{group}/{SWEEP}", group=group, job_type=SWEEP, tags=[SWEEP], config=cells)
    with open_wandb_run(tracking, description, report.directory, log_file) as session:
        if run := session.run:
            write_text(report.page, render(report))  # with the address of the run that has just begun
            with session.guarded():
                _log(run, report, group)
    return session.where


def _log(run: WandbRun, report: SweepReport, group: str) -> None:
    import wandb

    done = report.states.get("done", 0)
    run.summary.update({"sweep/cells": len(report.cells), "sweep/done": done, "sweep/not_done": len(report.cells) - done})
    answers = [f"{choice.model.label}: {badge(choice)}. {reason(choice)}" for choice in report.choices]
    run.summary["sweep/choice"] = "\n".join(answers)
    rows = [[getattr(row, name) for name in SWEEP_COLUMNS] for row in report.models if row.metric in STUDY]
    pictures = {
        f"sweep/{picture.name}": wandb.Image(str(report.png(picture)), caption=picture.finding) for picture in report.pictures
    }
    verdicts = [[cell.name, cell.verdict.verdict, cell.verdict.sentence] for cell in report.cells if cell.verdict]
    tables = {
        "sweep/table": wandb.Table(columns=list(SWEEP_COLUMNS), data=rows),
        "sweep/verdicts": wandb.Table(columns=["cell", "verdict", "sentence"], data=verdicts),
    }
    run.log(tables | pictures)
    artifact = wandb.Artifact(SWEEP, type=SWEEP, metadata={"group": group})
    for name in ("sweep.parquet", "sweep.html"):
        artifact.add_file(str(report.directory / name))
    for name in ("figures", "tables"):
        artifact.add_dir(str(report.directory / name), name=name)
    run.log_artifact(artifact)
