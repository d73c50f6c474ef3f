"""Log a run's results to Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.config.labels import method_name
from bitsure.config.metric import MetricSettings
from bitsure.config.schema import Config
from bitsure.records.record import Records
from bitsure.report.report_contents import About, Report
from bitsure.results import Costs, Labels, to_plain
from bitsure.results.measurement import MACRO
from bitsure.run.logged_keys import write_keys
from bitsure.run.provenance import full_names
from bitsure.run.tracked_artifacts import log_artifacts
from bitsure.run.tracked_charts import TrackedChart, run_charts, task_charts
from bitsure.run.tracked_numbers import NUMBER_COLUMNS, Values, fact_values, mean_values, number_rows, task_values
from bitsure.run.tracked_samples import SAMPLE_COLUMNS, sample_rows
from bitsure.run.wandb_run import RunDescription, WandbSession, open_wandb_run

if TYPE_CHECKING:
    import wandb

BESIDE = ("ci_low", "ci_high", "p_adjusted")  # stand beside a number in the run table, without a panel of their own
MOST_KEYS = 90  # of numbers and charts; W&B adds a few, and its pages grow slow beyond 100


@dataclass(frozen=True)
class TrackedRun:
    """The results of a run that are logged.

    Attributes:
        report: Numbers, verdict and charts.
        about: What the report says of the run besides.
        costs: Seconds, speed and memory.
        records: The scored questions.
        baseline: The same questions in full precision; None if the run is full precision itself.
        metric: How records became numbers.
    """

    report: Report
    about: About
    costs: Costs
    records: Records
    baseline: Records | None
    metric: MetricSettings


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

    def log(self, results: TrackedRun) -> None:
        """Log numbers, charts, tables and page at one step, the verdict as summary, and the files as artifacts."""
        if (run := self._session.run) is None:
            return
        report, about = results.report, results.about
        model = about.provenance.model if about.provenance else None
        facts = fact_values(about.quantization, results.costs, model)
        values, charts = _selected([facts, *mean_values(report, list(results.metric.own))], report)
        numbers = number_rows(report)
        samples = sample_rows(results.records, results.baseline, results.metric, about.prompts or {})
        with self._session.guarded():
            import wandb

            words = _verdict_words(report)
            run.config.update({"provenance": to_plain(about.provenance), "checkpoint": about.checkpoint}, allow_val_change=True)
            run.summary.update(words)
            tables = {"samples": _table(SAMPLE_COLUMNS, samples), "numbers": _table(NUMBER_COLUMNS, numbers)}
            drawn = {key: chart.for_wandb() for key, chart in charts.items()}
            for key in values:
                if key.endswith(BESIDE):
                    run.define_metric(key, hidden=True)
            page = {"report": wandb.Html(str(report.page), inject=False)} if about.has_page else {}
            logged = values | drawn | tables | page
            run.log(logged)
            write_keys(report.page.parent, [*words, *logged])
            log_artifacts(run, report.page.parent, about.quantization)


def _verdict_words(report: Report) -> dict[str, str]:
    """Return the verdict in words; none in full precision."""
    if (verdict := report.verdict) is None:
        return {}
    return {"verdict": verdict.verdict, "verdict_sentence": verdict.sentence, "verdict_settles": verdict.settles}


def _selected(groups: Sequence[Values], report: Report) -> tuple[Values, dict[str, TrackedChart]]:
    """Return the numbers and charts that are logged, at most MOST_KEYS.

    Args:
        groups: The numbers of the run as a whole, the most important ones first.
        report: The run's results, whose tasks come last, in their order; there may be more than W&B can show.
    """
    parts: list[tuple[Values, dict[str, TrackedChart]]] = [(group, {}) for group in groups]
    parts.append(({}, run_charts(report)))
    parts += [(task_values(report, task), task_charts(report, task)) for task in report.metrics if task != MACRO]
    values: Values = {}
    charts: dict[str, TrackedChart] = {}
    for own_values, own_charts in parts:
        if len(values) + len(charts) + len(own_values) + len(own_charts) <= MOST_KEYS:
            values |= own_values
            charts |= own_charts
    return values, charts


def _table(columns: Mapping[str, type], rows: list[list[Any]]) -> wandb.Table:
    """Return a table with a type for each column.

    W&B guesses the type of each value anew in a column that may lack values. So only the columns that do lack some are
    declared optional, and only the first row goes through W&B's own checks, which makes it ten times as fast.
    """
    import wandb

    optional = [any(row[k] is None for row in rows) for k in range(len(columns))]
    table = wandb.Table(columns=list(columns), data=rows[:1], dtype=list(columns.values()), optional=optional)
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
    labels, tracking = labels or full_names(config), config.tracking
    bits = resolved.get("quant", {}).get("bits")
    grouped_by = {"method": method_name(config.quant.name, bits), "preset": labels.preset or config.quant.name, "bits": bits}
    description = RunDescription(
        name=tracking.name or run_name(config, labels),
        group=tracking.group or sweep or labels.model,
        job_type="evaluation",
        tags=[*dict.fromkeys([labels.model, labels.quantizer, config.quant.name, config.task.name, *tracking.tags])],
        config=resolved | grouped_by,
        notes=tracking.notes,
    )
    with open_wandb_run(tracking, description, run_dir, log_file) as session:
        yield Tracker(session)


def run_name(config: Config, labels: Labels) -> str:
    """Return model/quantizer/tasks, calibration text where there is one, and what else the command sets.

    Such as `opt-125m/gptq4/study/c4-128x2048-seed0 task.limit=200`: commands that differ in what they compute differ in it.
    """
    parts, calib, in_parts = [labels.model, labels.quantizer, config.task.name], config.calib, ["task="]
    if config.quant.needs_data:
        parts.append(f"{calib.name}-{calib.nsamples}x{calib.seqlen}-seed{calib.seed}")
        in_parts += ["calib=", "calib.nsamples=", "calib.seqlen=", "calib.seed="]
    others = [setting for setting in labels.settings if not setting.startswith(tuple(in_parts))]
    return " ".join(["/".join(parts), *others])
