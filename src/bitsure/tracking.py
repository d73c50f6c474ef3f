"""Weights & Biases: the only file that imports wandb."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bitsure import terminal
from bitsure.config import Config, Metric, Tracking
from bitsure.errors import UserError
from bitsure.metrics import bins_of
from bitsure.metrics.calibration import reliability_diagram
from bitsure.metrics.confidence import questions
from bitsure.metrics.texts import texts
from bitsure.records import Records, by_task, has_choices, is_text, join, rows, table
from bitsure.report import Report
from bitsure.sweep.statistics import STUDY
from bitsure.sweep.table import COSTS

if TYPE_CHECKING:
    from bitsure.sweep import Sweep

WAYS_OUT = (
    "Ways out: `wandb login` (or the environment variable WANDB_API_KEY); or tracking.mode=offline, and `wandb sync` later."
)


def check_login(tracking: Tracking) -> None:
    """Raise UserError if runs should be sent and there is no login, before anything is computed."""
    if tracking.mode != "online":
        return
    import wandb

    if not wandb.api.api_key:  # from the environment, .netrc or wandb's settings; never shown or kept
        raise UserError(f"tracking.mode=online: not logged in to Weights & Biases. {WAYS_OUT}")


class Tracker:
    """Logs a run; every method does nothing where tracking is disabled."""

    def __init__(self, run: Any | None):
        self._run = run

    @property
    def look(self) -> str | None:
        """How to look further: the run's address, or the command that sends an offline run."""
        if not self._run:
            return None
        return self._run.url or f"wandb sync {Path(self._run.dir).parent}"

    def log(
        self,
        provenance: dict,
        report: Report,
        quantization: dict | None,
        costs: dict,
        records: Records,
        baseline: Records | None,
        metric: Metric,
        records_file: Path,
    ) -> None:
        """Summary numbers `<task>/<metric>`, differences `<task>/delta/<metric>`, the verdict, `costs/…` as in costs.json;
        pictures, curves that overlay runs, samples and the records.
        """
        if not self._run:
            return
        import wandb

        self._run.config.update({"provenance": provenance}, allow_val_change=True)
        summary = {f"{task}/{name}": one["value"] for task, values in report.metrics.items() for name, one in values.items()}
        for task, values in (report.comparison or {}).items():
            summary |= {f"{task}/delta/{name}": one["value"] for name, one in values.items()}
        if report.verdict:
            summary |= {"verdict": report.verdict["verdict"]}
            summary |= {f"{task}/verdict": one["verdict"] for task, one in report.verdict["tasks"].items()}
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
            | {
                f"reliability_curve/{task}": wandb.plot.line(
                    wandb.Table(columns=["confidence", "accuracy", "questions"], data=points),
                    "confidence",
                    "accuracy",
                    title=f"{task}: share right against confidence",
                )
                for task, points in reliability_points(records, metric).items()
            }
            | {"samples": _typed_table(SAMPLE_COLUMNS, sample_rows(records, baseline, metric.normalization))}
        )
        artifact = wandb.Artifact(f"records-{self._run.id}", type="records")
        artifact.add_file(str(records_file))
        self._run.log_artifact(artifact)


PROOF = ("bits_per_weight", "parameter_share", "relative_error", "bits_per_weight_coded", "code_entropy", "load_seconds")
SWEEP = "sweep"  # the summary run's job type
SWEEP_COLUMNS = ("model", "series", "parameters", "quantizer", "setting", "bits_per_weight", "size_bytes", "task", "metric")
SWEEP_COLUMNS += ("value", "ci_low", "ci_high", "n", "baseline", "delta", "delta_ci_low", "delta_ci_high", "p_adjusted")
SWEEP_COLUMNS += COSTS
SAMPLE_COLUMNS = {
    "task": str,
    "doc_id": int,
    "choices": str,
    "gold": str,
    "prediction": str,
    "confidence": float,
    "true_label_prob": float,
    "baseline_prediction": str,
    "baseline_confidence": float,
    "baseline_true_label_prob": float,
    "true_label_prob_change": float,
}


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


def reliability_points(records: Records, metric: Metric) -> dict[str, list[list[float]]]:
    """By task with choices, a row for each bin that holds questions: mean confidence, accuracy, questions."""
    points = {}
    for task, found in by_task(records).items():
        if not has_choices(found):
            continue
        asked = questions(found, metric.normalization)
        bins = reliability_diagram(asked.confidence, asked.correct, bins_of(asked, metric))
        rows_ = zip(bins.confidence, bins.accuracy, bins.count, strict=True)
        points[task] = [[float(c), float(a), int(n)] for c, a, n in rows_ if n]
    return points


def sample_rows(records: Records, baseline: Records | None, normalization: str) -> list[list]:
    """A row under SAMPLE_COLUMNS for each question (whole texts have none), with both models' choice if there is a baseline."""
    if baseline is None:
        return [[*asked, *seen, *[None] * 4] for asked, seen in _seen(table(records), normalization)]
    joined = join(baseline, records)
    pairs = zip(_seen(joined.baseline, normalization), _seen(joined.quantized, normalization), strict=True)
    both = [[*asked, *now, *then, now[2] - then[2]] for (_, then), (asked, now) in pairs]
    return both + [[*asked, *seen, *[None] * 4] for asked, seen in _seen(joined.unmatched, normalization)]


def _seen(records: pa.Table, normalization: str) -> list[tuple[list, list]]:
    """Of each question what was asked, and the model's choice, its confidence and the right answer's probability."""
    return [
        ([one.task, one.doc_id, " | ".join(one.choices), str(one.gold)], seen)
        for found in by_task(records).values()
        if not is_text(found)
        for one, seen in zip(rows(found), _answers(found, normalization), strict=True)
    ]


def _answers(found: pa.Table, normalization: str) -> list[list]:
    """Of a task's questions: the choice and the confidence (None where there are no choices), the right one's probability."""
    if not has_choices(found):
        return [[None, None, p] for p in texts(found).true_label_prob.tolist()]
    q, choices = questions(found, normalization), found["choices"].to_pylist()
    numbers = zip(choices, q.prediction.tolist(), q.confidence.tolist(), q.true_label_prob.tolist(), strict=True)
    return [[of[choice], confidence, p] for of, choice, confidence, p in numbers]


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


def track_sweep(tracking: Tracking, made: Sweep) -> str | None:
    """A summary run of a sweep: its states, its table and figures, and all its files as an artifact; how to look further.

    It stands in the group of the sweep's cells, and its keys are the same for every sweep.
    """
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


@contextmanager
def _run(tracking: Tracking, directory: Path, log_file: Path, **about: Any) -> Iterator[Any | None]:
    """A W&B run around the block, None where tracking is disabled; with exit code 1 if the block raises."""
    if tracking.mode == "disabled":
        yield None
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    try:
        with terminal.output_to(log_file):
            run = wandb.init(
                project=tracking.project,
                entity=tracking.entity,
                mode=tracking.mode,
                dir=str(directory),
                # what is installed is in provenance, as far as it matters; listing it all takes longer than all else here
                settings=wandb.Settings(console="off", disable_git=True, disable_code=True, x_save_requirements=False),
                **about,
            )
    except wandb.errors.Error as error:
        raise UserError(f"Weights & Biases cannot start a run: {error}\n{WAYS_OUT}") from error
    try:
        yield run
    except BaseException:
        with terminal.output_to(log_file):
            run.finish(exit_code=1)
        raise
    with terminal.output_to(log_file):
        run.finish()
