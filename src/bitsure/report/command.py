"""Make the report of a run again, from its directory or from lm-evaluation-harness's logs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from threadpoolctl import threadpool_limits

from bitsure.base.errors import UserError
from bitsure.comparison import compare, judge
from bitsure.config.report_settings import own_metric_names, read_report_settings
from bitsure.records.harness_log import read_harness_log
from bitsure.records.parquet import read_prompts, read_records
from bitsure.records.record import Records
from bitsure.report import terminal_summary
from bitsure.report.report_contents import About, Report
from bitsure.report.run_report import BASELINE_FILES, build
from bitsure.results import Comparison, Compressibility, Provenance, Quantization, read_if_there

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedRun:
    """The records of a run and what they were made from."""

    records: Records
    prompts: dict[tuple[str, int], str]  # (task, doc_id) → prompt
    made_from: dict[str, Any]  # task → what its records were made from; empty for the harness's logs


def report_run(
    directory: Path,
    baseline: Path | None = None,
    metric_name: str | None = None,
    out: Path | None = None,
    config_dir: Path | None = None,
) -> Report:
    """Compute everything from a run's records, write the report and show its summary on the terminal.

    Args:
        directory: A run directory, or one with the samples_*.jsonl that lm-evaluation-harness writes with --log_samples.
        baseline: The same of the full-precision model; None for the baseline in the run directory, if it has one.
        metric_name: An option of conf/metric, such as paper_compat; None for the run's own settings.
        config_dir: A folder with options of the user's own, such as metric/mine.yaml.
        out: Where to write; None for `directory` itself. Either all files are written or none.

    Returns:
        The numbers, and where the files are.

    Raises:
        UserError: If there are no records, the two runs cannot be compared, or the run's files would lose metrics of its own.
    """
    metric, margins = read_report_settings(directory / "config.yaml", metric_name, config_dir)
    out = out or directory
    if names := [name for name in own_metric_names(directory / "config.yaml") if name not in metric.own]:
        _leave_out(names, directory, out)
    run = read_saved_run(directory)
    full = read_saved_run(baseline) if baseline is not None else _own_baseline(directory)
    if full is not None:
        _check_versions(run.made_from, full.made_from)
    about = _about(directory, run.prompts)
    with _all_or_nothing(out) as unfinished:
        report = build(unfinished, run.records, full.records if full else None, metric, margins, about)
    report = report.moved_to(out)
    terminal_summary.show(report, about, metric, {"report": report.page})
    return report


def _leave_out(names: list[str], directory: Path, out: Path) -> None:
    """Warn that a report has none of the run's own metrics; raise UserError where it would replace files that have them."""
    if out.resolve() == directory.resolve():
        raise UserError(
            f"{directory}: metrics.json and comparison.json would lose the run's own metrics {', '.join(names)}; give "
            "--out DIR to write a report without them elsewhere, or --metric NAME --config-dir DIR to bring them."
        )
    log.warning("The run's own metrics are left out: %s. --metric with an option of yours adds them.", ", ".join(names))


def compare_runs(baseline: Path, directory: Path) -> Comparison:
    """Compare two runs on the same questions and show the result on the terminal; nothing is written.

    Args:
        baseline: A run directory, or one with lm-evaluation-harness's logs, of the model to compare with.
        directory: The same of the other model; its own metric and verdict settings hold, where it has some.

    Returns:
        Task → metric → difference.

    Raises:
        UserError: If there are no records, or the two runs cannot be compared.
    """
    metric, margins = read_report_settings(directory / "config.yaml")
    before, after = read_saved_run(baseline), read_saved_run(directory)
    _check_versions(after.made_from, before.made_from)
    with threadpool_limits(1, "blas"):  # as a report, so that the numbers are the same
        comparison = compare(before.records, after.records, metric)
    verdict = judge(comparison, margins, metric.confidence_level)
    terminal_summary.show_comparison(comparison, verdict, f"{directory.name} against {baseline.name}", metric)
    return comparison


def read_saved_run(directory: Path) -> SavedRun:
    """Read a run's records, from our own files or from the harness's logs. Raises UserError if it has neither."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory.")
    if (directory / "records.parquet").is_file():
        records, made_from = read_records(directory / "records.parquet")
        return SavedRun(records, read_prompts(directory / "prompts.parquet"), made_from)
    if any(directory.glob("samples_*.jsonl")):
        return SavedRun(*read_harness_log(directory), {})
    raise UserError(
        f"{directory} holds neither records.parquet (a run of bitsure) nor samples_*.jsonl (of lm-evaluation-harness)."
    )


def _own_baseline(directory: Path) -> SavedRun | None:
    file = directory / "baseline.parquet"
    if not file.is_file():
        return None
    records, made_from = read_records(file)
    return SavedRun(records, {}, made_from)


def _about(directory: Path, prompts: dict[tuple[str, int], str]) -> About:
    quantization = read_if_there(directory / "quantization.json", Quantization)
    provenance = read_if_there(directory / "provenance.json", Provenance)
    name = provenance.model.name if provenance and provenance.model else directory.resolve().name
    config = directory / "config.yaml"
    return About(
        title=f"{name}, {quantization.quantizer}" if quantization else name,
        quantization=quantization,
        provenance=provenance,
        prompts=prompts,
        noisy=[read_records(path)[0] for path in sorted((directory / "noise_control").glob("*.parquet"))],
        compressibility=read_if_there(directory / "compressibility.json", Compressibility),
        task=yaml.safe_load(config.read_text(encoding="utf-8")).get("task") if config.is_file() else None,
    )


def _check_versions(made_from: dict[str, Any], baseline_made_from: dict[str, Any]) -> None:
    """Raise UserError if different versions of the harness scored a task's two runs."""
    for task in made_from.keys() & baseline_made_from.keys():
        full, quantized = (side[task].get("libraries", {}).get("lm_eval") for side in (baseline_made_from, made_from))
        if full != quantized:
            raise UserError(
                f"task {task}: lm_eval {full} scored full precision, {quantized} the quantized model; their prompts may "
                "differ. Score one of them again."
            )


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; its files move to `out` if the block ends well.

    Files of an earlier report that this one did not write are removed, so that no old number stands beside new ones.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as unfinished:
        yield Path(unfinished)
        files = {path.relative_to(unfinished): path for path in Path(unfinished).rglob("*") if path.is_file()}
        for name, file in files.items():
            (out / name).parent.mkdir(exist_ok=True)
            file.rename(out / name)
        for outdated in {Path(name) for name in BASELINE_FILES} - files.keys():
            (out / outdated).unlink(missing_ok=True)
