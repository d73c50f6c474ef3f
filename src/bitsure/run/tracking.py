"""Weights & Biases: the only file that imports wandb."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import hash_json, write_text
from bitsure.config.schema import Config, MetricSettings, TrackingSettings
from bitsure.records.record import Records
from bitsure.report.run_report import Report
from bitsure.run.directory import BROKEN_OFF
from bitsure.run.tracking_samples import SAMPLE_COLUMNS, reliability_points, sample_rows
from bitsure.sweep.report.sweep_statistics import STUDY
from bitsure.sweep.report.sweep_table import COSTS

if TYPE_CHECKING:
    from bitsure.sweep.report.sweep_report import Sweep

WAYS_OUT = (
    "Ways out: `wandb login` (or the environment variable WANDB_API_KEY); or tracking.mode=offline, and `wandb sync` later."
)


def check_login(tracking: TrackingSettings) -> None:
    """Raise UserError if runs should be sent and there is no login, before anything is computed."""
    if tracking.mode != "online":
        return
    import wandb

    if not wandb.api.api_key:  # from the environment, .netrc or wandb's settings; never shown or kept
        raise UserError(f"tracking.mode=online: not logged in to Weights & Biases. {WAYS_OUT}")


def begin(tracking: TrackingSettings) -> None:
    """Let W&B start its service, for a quarter of a second, beside what comes before `track`, which says what went wrong."""
    if tracking.mode == "disabled":
        return

    def start() -> None:
        with suppress(Exception):
            _wandb().setup()

    threading.Thread(target=start, daemon=True).start()


def _wandb() -> ModuleType:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


class Tracker:
    """Logs a run; every method does nothing where tracking is disabled."""

    def __init__(self, run: Any | None):
        self._run = run
        self._error: Exception | None = None

    @property
    def look(self) -> str | None:
        """How to look further: the run's address, or the command that sends an offline run."""
        if not self._run:
            return None
        return self._run.url or f"wandb sync {Path(self._run.dir).parent}"

    def log_samples(self, records: Records, baseline: Records | None, metric: MetricSettings) -> None:
        """What both models said to each question, and curves that overlay runs; they go with what `log` logs.

        What goes wrong here is raised by `log`: it is called when the report is written, and this one before.
        """
        if self._run:
            try:
                self._log_samples(records, baseline, metric)
            except Exception as error:
                self._error = error

    def _log_samples(self, records: Records, baseline: Records | None, metric: MetricSettings) -> None:
        import wandb

        curves = {
            f"reliability_curve/{task}": wandb.plot.line(
                wandb.Table(columns=["confidence", "accuracy", "questions"], data=points),
                "confidence",
                "accuracy",
                title=f"{task}: share right against confidence",
            )
            for task, points in reliability_points(records, metric).items()
        }
        samples = _typed_table(SAMPLE_COLUMNS, sample_rows(records, baseline, metric.normalization))
        self._run.log(curves | {"samples": samples}, commit=False)

    def log(
        self,
        provenance: dict,
        report: Report,
        quantization: dict | None,
        costs: dict,
        records_file: Path,
    ) -> None:
        """Summary numbers `<task>/<metric>`, differences `<task>/delta/<metric>`, the verdict, `costs/…` as in costs.json;
        pictures and the records.
        """
        if not self._run:
            return
        if self._error:
            raise self._error
        import wandb

        self._run.config.update({"provenance": provenance}, allow_val_change=True)
        summary = {f"{task}/{name}": one.value for task, values in report.metrics.items() for name, one in values.items()}
        for task, values in (report.comparison or {}).items():
            summary |= {f"{task}/delta/{name}": one.value for name, one in values.items()}
        if report.verdict:
            summary |= {"verdict": report.verdict.verdict}
            summary |= {f"{task}/verdict": one.verdict for task, one in report.verdict.tasks.items()}
        if quantization:
            summary |= {f"quantization/{key}": quantization[key] for key in PROOF if key in quantization}
        for what, took in costs.items():
            summary |= {f"costs/{what}/{key}": value for key, value in (took or {}).items() if key != "by_task"}
        self._run.summary.update({key: value for key, value in summary.items() if value is not None})
        self._run.log(
            {
                f"{kind}/{task}": wandb.Image(str(picture))
                for kind, pictures in report.figures.items()
                for task, picture in pictures.items()
            }
        )
        artifact = wandb.Artifact(f"records-{self._run.id}", type="records")
        artifact.add_file(str(records_file))
        self._run.log_artifact(artifact)


PROOF = ("bits_per_weight", "parameter_share", "relative_error", "bits_per_weight_coded", "code_entropy", "load_seconds")
SWEEP = "sweep"  # the summary run's job type
RUN = "wandb/run.json"  # beside what W&B leaves: the run's id
HEADER = 7  # bytes that W&B's file of a run begins with
SWEEP_COLUMNS = ("model", "series", "parameters", "quantizer", "setting", "bits_per_weight", "size_bytes", "task", "metric")
SWEEP_COLUMNS += ("value", "ci_low", "ci_high", "n", "baseline", "delta", "delta_ci_low", "delta_ci_high", "p_adjusted")
SWEEP_COLUMNS += COSTS


def _typed_table(columns: dict[str, type], rows_: list[list]) -> Any:
    """Columns that may lack a value are told from those that do not: for one that may, W&B guesses each value's type anew.

    It is given the first row, which it holds to the types, and the others, of the same types, as they are: that is ten times as
    fast.
    """
    import wandb

    lacks = [any(row[k] is None for row in rows_) for k in range(len(columns))]
    table_ = wandb.Table(columns=list(columns), data=rows_[:1], dtype=list(columns.values()), optional=lacks)
    table_.data += rows_[1:]
    return table_


@contextmanager
def track(config: Config, resolved: dict, run_dir: Path, sweep: str | None, log_file: Path) -> Iterator[Tracker]:
    """A W&B run around the block, finished whatever happens: with exit code 1 if the block raises."""
    named = {
        "name": f"{config.model.name}/{config.quant.name}",
        "group": config.tracking.group or sweep or config.model.name,
        "job_type": config.quant.name,
        "tags": [config.model.name, config.quant.name, config.task.name],
    }
    with _run(config.tracking, run_dir, log_file, config=resolved, **named) as run:
        yield Tracker(run)


def track_sweep(tracking: TrackingSettings, made: Sweep) -> str | None:
    """A summary run of a sweep: its states, its table and figures, and all its files as an artifact; how to look further.

    It stands in the group of the sweep's cells, and its keys are the same for every sweep.
    """
    for cell in made.cells:
        if cell.state in BROKEN_OFF:
            _remove_attempts(cell.directory)
    group, log_file = tracking.group or made.directory.resolve().name, made.directory / "libraries.log"
    named = {"name": f"{group}/{SWEEP}", "group": group, "job_type": SWEEP, "tags": [SWEEP]}
    with _run(tracking, made.directory, log_file, config={"cells": [cell.name for cell in made.cells]}, **named) as run:
        if run is None:
            return None
        import wandb

        done = made.states.get("done", 0)
        run.summary.update({"sweep/cells": len(made.cells), "sweep/done": done, "sweep/not_done": len(made.cells) - done})
        rows_ = [[row[name] for name in SWEEP_COLUMNS] for row in made.models if row["metric"] in STUDY]
        pictures = {f"sweep/{picture.name}": wandb.Image(str(path)) for picture, path in made.pictures}
        run.log({"sweep/table": wandb.Table(columns=list(SWEEP_COLUMNS), data=rows_)} | pictures)
        artifact = wandb.Artifact(SWEEP, type=SWEEP, metadata={"group": group})
        for name in ("sweep.parquet", "sweep.html"):
            artifact.add_file(str(made.directory / name))
        for name in ("figures", "tables"):
            artifact.add_dir(str(made.directory / name), name=name)
        run.log_artifact(artifact)
        return Tracker(run).look


def _id_of(directory: Path, of: str) -> str:
    """The id of a directory's W&B run: a cell that is taken up again, or a sweep that is summed up again, is the same run.

    of: hash of what is run; something else there has another id. One of W&B's agents gives its own.
    """
    if given := os.environ.get("WANDB_RUN_ID"):
        return given
    file = directory / RUN
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text())
        if kept["of"] == of and re.fullmatch("[0-9a-f]{12}", kept["id"]):
            return kept["id"]
    file.parent.mkdir(exist_ok=True)
    made = uuid4().hex[:12]
    write_text(file, json.dumps({"id": made, "of": of}))
    return made


def _remove_attempts(directory: Path, run_id: str | None = None) -> None:
    """Remove offline runs that were broken off before anything was written, and all with an id, which is run again.

    `wandb sync` of many sends none of them where one is empty.
    """
    for file in directory.glob("wandb/offline-run-*/run-*.wandb"):
        if file.stem == f"run-{run_id}" or file.stat().st_size <= HEADER:
            shutil.rmtree(file.parent)


@contextmanager
def _run(tracking: TrackingSettings, directory: Path, log_file: Path, **about: Any) -> Iterator[Any | None]:
    """A W&B run around the block, None where tracking is disabled; with exit code 1 if the block raises."""
    if tracking.mode == "disabled":
        yield None
        return
    wandb, run_id = _wandb(), _id_of(directory, hash_json([tracking.mode, about]))
    if tracking.mode == "offline":
        _remove_attempts(directory, run_id)
    try:
        with terminal.output_to(log_file):
            run = wandb.init(
                id=run_id,
                project=tracking.project,
                entity=tracking.entity,
                mode=tracking.mode,
                dir=str(directory),
                # what is installed is in provenance, as far as it matters; listing it all takes longer than all else here
                settings=wandb.Settings(console="off", disable_git=True, disable_code=True, x_save_requirements=False),
                **about,
            )
    except wandb.errors.Error as error:
        of_id = f"Or remove {directory / RUN}, which keeps the run's id, for a new one."
        raise UserError(f"Weights & Biases cannot start a run: {error}\n{WAYS_OUT} {of_id}") from error
    try:
        yield run
    except BaseException:
        with terminal.output_to(log_file):
            run.finish(exit_code=1)
        raise
    with terminal.output_to(log_file):
        run.finish()
