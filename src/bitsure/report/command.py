"""Make the report of a run again, from its directory or from lm-evaluation-harness's logs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.distinct_names import distinct_names
from bitsure.base.errors import UserError
from bitsure.base.files import make_folder
from bitsure.base.progress import working
from bitsure.comparison import run_differences
from bitsure.config.report_settings import own_metric_names, read_report_settings
from bitsure.config.run_config import read_run_config
from bitsure.records.saved_run import (
    SavedRun,
    check_harness_versions,
    read_answers,
    read_own_baseline,
    read_saved_run,
)
from bitsure.report import terminal_summary
from bitsure.report.report_contents import About, Report, run_title
from bitsure.report.run_report import BASELINE_FILES, build
from bitsure.report.served_sentences import engine_parity
from bitsure.report.tracked_run import tracked_at
from bitsure.results import Attribution, Comparison, Compressibility, Labels, Provenance, Quantization, Status, read_if_there
from bitsure.results.run_files import ModelOrigin

log = logging.getLogger(__name__)


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
    run = read_saved_run(directory)
    full = read_saved_run(baseline) if baseline is not None else read_own_baseline(directory)
    if full is not None:
        check_harness_versions(full, run)
    metric, margins = read_report_settings(directory / "config.yaml", metric_name, config_dir)
    out = out or directory
    if names := [name for name in own_metric_names(directory / "config.yaml") if name not in metric.own]:
        _leave_out(names, directory, out)
    about = _about(directory, run, full.bits_per_weight if full else None)
    with working("report"), _all_or_nothing(out) as unfinished:
        report = build(unfinished, run.records, full.records if full else None, metric, margins, about)
    report = report.moved_to(out)
    terminal_summary.show(report, about, metric, {"report": report.page, "checkpoint": about.checkpoint_in_words})
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
        UserError: If both are one directory, there are no records, or the two runs cannot be compared.
    """
    if baseline.resolve() == directory.resolve():
        raise UserError(
            f"{directory} is given twice, and a run differs from itself in nothing. Give two runs; `bitsure report` compares "
            "a run with its own full precision."
        )
    metric, margins = read_report_settings(directory / "config.yaml")
    first, second = read_saved_run(baseline), read_saved_run(directory)
    comparison, verdict = run_differences.compare_runs(first, second, metric, margins)
    called = run_differences.baseline_name(first, second)
    terminal_summary.show_comparison(comparison, verdict, _compared_names(baseline, directory), metric, called)
    return comparison


def _compared_names(*directories: Path) -> tuple[str, str]:
    """Return what two runs are called: models and quantizers, or folders where those are equal; warn if the models differ."""
    origins = [read_if_there(directory / "provenance.json", Provenance) for directory in directories]
    models = [origin.model for origin in origins if origin and origin.model]
    parity = engine_parity(*origins)
    if parity is None and len({model.fingerprint for model in models}) > 1:
        log.warning("The runs are of different models: %s. Not all of the differences are quantization's.", _told_apart(models))
    if parity:
        terminal.console().print(parity, markup=False, highlight=False)
    quantizations = [read_if_there(directory / "quantization.json", Quantization) for directory in directories]
    first, second = map(_title, directories, origins, quantizations)
    if first == second:
        first, second = distinct_names(directories)
    return first, second


def _told_apart(models: Sequence[ModelOrigin]) -> str:
    """Return the names of models; of one name, with the beginnings of their fingerprints."""
    names = [model.name for model in models]
    if len(set(names)) == 1:
        names = [f"{model.name} ({model.fingerprint[:8]})" for model in models]
    return " and ".join(names)


def _about(directory: Path, run: SavedRun, baseline_bits: float | None) -> About:
    quantization = read_if_there(directory / "quantization.json", Quantization)
    provenance = read_if_there(directory / "provenance.json", Provenance)
    status = read_if_there(directory / "status.json", Status)
    config = directory / "config.yaml"
    settings = read_run_config(config) if config.is_file() else {}
    task, control = settings.get("task"), settings.get("control")
    scale = control.get("scale", 1.0) if isinstance(control, dict) else 1.0
    return About(
        title=_title(directory, provenance, quantization),
        quantization=quantization,
        provenance=provenance,
        prompts=run.prompts,
        baseline_bits=baseline_bits,
        noisy=[read_answers(path)[0] for path in sorted((directory / "noise_control").glob("*.parquet"))],
        noise_scale=float(scale) if isinstance(scale, int | float) else 1.0,
        compressibility=read_if_there(directory / "compressibility.json", Compressibility),
        attribution=read_if_there(directory / "attribution.json", Attribution),
        task=task if isinstance(task, dict) else None,
        tracked=tracked_at(directory),
        started=status.started if status else None,
    )


def _title(directory: Path, provenance: Provenance | None, quantization: Quantization | None) -> str:
    """Return what a run is about; the directory's name for the harness's logs, of which no more is known."""
    if provenance is None or provenance.model is None:
        return directory.resolve().name
    quantizer = quantization.quantizer if quantization else None
    labels = provenance.labels or Labels(model=provenance.model.name, quantizer=quantizer or "none")
    if "quantized" in (provenance.servers or {}):
        quantizer = labels.quantizer
    return run_title(labels, quantizer)


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; its files move to `out` if the block ends well.

    Files of an earlier report that this one did not write are removed, so that no old number stands beside new ones.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as unfinished:
        yield Path(unfinished)
        files = {path.relative_to(unfinished): path for path in Path(unfinished).rglob("*") if path.is_file()}
        for folder in {name.parent for name in files} - {Path()}:
            make_folder(out / folder)
        for name, file in files.items():
            file.rename(out / name)
        for outdated in {Path(name) for name in BASELINE_FILES} - files.keys():
            (out / outdated).unlink(missing_ok=True)
