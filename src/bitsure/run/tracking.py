"""Log a run's results to Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.config.schema import Config, MetricSettings
from bitsure.records.record import Records
from bitsure.report import rounded
from bitsure.report.report_contents import Report
from bitsure.results import Costs, Labels, Provenance, Quantization, to_plain
from bitsure.run.provenance import full_names
from bitsure.run.tracking_samples import SAMPLE_COLUMNS, Cell, reliability_points, sample_rows
from bitsure.run.wandb_names import fit
from bitsure.run.wandb_run import RunDescription, WandbRun, WandbSession, open_wandb_run

if TYPE_CHECKING:
    import wandb

QUANTIZATION_KEYS = (
    "bits_per_weight",
    "parameter_share",
    "relative_error",
    "bits_per_weight_coded",
    "code_entropy",
    "load_seconds",
    "checkpoint",
)


class Tracker:
    """Logs one run; where tracking is disabled every method does nothing."""

    def __init__(self, session: WandbSession) -> None:
        self._session = session

    @property
    def where(self) -> str | None:
        """Where to look, or what is missing; None where tracking is disabled."""
        return self._session.where

    @property
    def warning(self) -> str | None:
        """What is missing at W&B and how to send it; None where nothing is."""
        return f"W&B: {self.where}" if self._session.broken_off else None

    def log_facts(self, provenance: Provenance, quantization: Quantization | None, costs: Costs) -> None:
        """Log where a run comes from (config), what was quantized and what it cost (summary)."""
        facts = to_plain(quantization) if quantization else {}
        summary = {f"quantization/{key}": facts[key] for key in QUANTIZATION_KEYS if key in facts}
        summary |= rounded.tracked_values(quantization, provenance.model) if quantization else {}
        for step, values in to_plain(costs).items():
            summary |= {f"costs/{step}/{key}": value for key, value in (values or {}).items() if key != "by_task"}
        if run := self._session.run:
            with self._session.guarded():
                run.config.update({"provenance": to_plain(provenance)}, allow_val_change=True)
                _update_summary(run, summary)

    def log_report(self, report: Report, records: Records, baseline: Records | None, metric: MetricSettings) -> None:
        """Log a report: numbers and verdict (summary), figures, reliability curves, and a table of all questions.

        Numbers are named `<task>/<metric>`, differences `<task>/delta/<metric>`.
        """
        if (run := self._session.run) is None:
            return
        summary, points = _summary(report), reliability_points(records, metric)
        rows = sample_rows(records, baseline, metric.normalization)
        with self._session.guarded():
            import wandb

            _update_summary(run, summary)
            pictures = {
                f"{kind}/{fit(task)}": wandb.Image(str(drawn.path), caption=drawn.chart.finding)
                for kind, charts in report.figures.items()
                for task, drawn in charts.items()
                if drawn.path
            }
            run.log(pictures | _reliability_curves(points) | {"samples": _samples_table(rows)})

    def log_records(self, file: Path) -> None:
        """Log records.parquet as an artifact."""
        if run := self._session.run:
            with self._session.guarded():
                import wandb

                artifact = wandb.Artifact(fit(f"records-{run.id}"), type="records")
                artifact.add_file(str(file))
                run.log_artifact(artifact)


def _update_summary(run: WandbRun, values: Mapping[str, object]) -> None:
    run.summary.update({key: value for key, value in values.items() if value is not None})


def _summary(report: Report) -> dict[str, object]:
    summary: dict[str, object] = {}
    for task, measured in report.metrics.items():
        summary |= {f"{fit(task)}/{name}": number.value for name, number in measured.items()}
    for task, values in (report.comparison or {}).items():
        summary |= {f"{fit(task)}/delta/{name}": difference.value for name, difference in values.items()}
    if report.verdict:
        summary |= {"verdict": report.verdict.verdict, "verdict_sentence": report.verdict.sentence}
        summary["verdict_settles"] = report.verdict.settles
        summary |= {f"{fit(task)}/verdict": task_verdict.verdict for task, task_verdict in report.verdict.tasks.items()}
    return summary


def _reliability_curves(points_by_task: Mapping[str, list[list[float]]]) -> dict[str, Any]:
    """Return a line plot for each task; W&B overlays those of several runs."""
    import wandb

    return {
        f"reliability_curve/{fit(task)}": wandb.plot.line(
            wandb.Table(columns=["confidence", "accuracy", "questions"], data=points),
            "confidence",
            "accuracy",
            title=f"{task}: accuracy against confidence",
        )
        for task, points in points_by_task.items()
    }


def _samples_table(rows: Sequence[list[Cell]]) -> wandb.Table:
    """Return a table with a type for each column.

    W&B guesses the type of each value anew in a column that may lack values. So only the columns that do lack some are
    declared optional, and only the first row goes through W&B's own checks, which makes it ten times as fast.
    """
    import wandb

    optional = [any(row[k] is None for row in rows) for k in range(len(SAMPLE_COLUMNS))]
    types = list(SAMPLE_COLUMNS.values())
    table = wandb.Table(columns=list(SAMPLE_COLUMNS), data=list(rows[:1]), dtype=types, optional=optional)
    table.data += rows[1:]
    return table


@contextmanager
def track_run(
    config: Config, resolved: dict[str, Any], run_dir: Path, sweep: str | None, log_file: Path, labels: Labels | None = None
) -> Iterator[Tracker]:
    """Open a W&B run around the block and finish it in any case, with exit code 1 if the block raises.

    Args:
        config: The run's settings.
        resolved: The same as plain data, for W&B.
        run_dir: The run's directory.
        sweep: The name of the sweep that the run belongs to, if any: its group in W&B.
        log_file: Where W&B's own output goes.
        labels: What the command calls model and quantizer; None for their names.

    Yields:
        What logs the run.
    """
    labels = labels or full_names(config)
    description = RunDescription(
        name=f"{labels.model}/{labels.quantizer}",
        group=config.tracking.group or sweep or labels.model,
        job_type=config.quant.name,
        tags=list(dict.fromkeys([labels.model, labels.quantizer, config.quant.name, config.task.name])),
        config=resolved,
    )
    with open_wandb_run(config.tracking, description, run_dir, log_file) as session:
        yield Tracker(session)
