"""Show whether quantization hurts one model more than another, from run directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.decimals import with_ends
from bitsure.base.distinct_names import distinct_names
from bitsure.base.errors import UserError
from bitsure.comparison.between_models import BetweenModels, MeanChange, QuantizedModel, compare_models
from bitsure.comparison.changes import answer_changes
from bitsure.config.metric import MetricSettings
from bitsure.config.report_settings import read_report_settings
from bitsure.metrics.across import Contrast
from bitsure.records.directory_kinds import refuse_sweep
from bitsure.records.joining import join
from bitsure.records.saved_run import check_harness_versions, read_own_baseline, read_saved_run


def report_models(directories: Sequence[Path]) -> None:
    """Print each model's change, how much the changes vary, and the contrasts of all pairs of models.

    Args:
        directories: Run directories of two or more quantized models. The metric settings are those of
            the first.

    Raises:
        UserError: If there are fewer than two, one is given twice or is a sweep's, a directory lacks records or a baseline,
            or different versions of the harness scored the two.
    """
    for directory in directories:
        refuse_sweep(directory)
    names = distinct_names(directories)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{', '.join(names)}: give two or more run directories, each of them once.")
    metric, _ = read_report_settings(directories[0] / "config.yaml")
    out = terminal.console()
    for task, result in compare_models(
        [_read(directory, name, metric) for directory, name in zip(directories, names, strict=True)], metric
    ).items():
        for line in _lines(task, result, metric.confidence_level):
            out.print(line, markup=False)


def _read(directory: Path, name: str, metric: MetricSettings) -> QuantizedModel:
    files = [directory / name for name in ("baseline.parquet", "records.parquet")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{directory} holds no {' and no '.join(missing)}: give run directories of quantized models.")
    run, baseline = read_saved_run(directory), read_own_baseline(directory)
    assert baseline is not None  # its file is there
    check_harness_versions(baseline, run)
    return QuantizedModel(name, answer_changes(join(baseline.records, run.records), metric))


def _lines(task: str, result: BetweenModels, level: float) -> list[str]:
    lines = [f"\n{task}: change of the mean true-label probability, {level:.0%} intervals"]
    lines += [f"  {model}: {_estimate(change)}" for model, change in result.mean_changes.items()]
    if spread := result.heterogeneity:
        lines.append(f"  Cochran's Q {spread.q:.2f} (p = {spread.p_value:.2g}), I² {spread.i_squared:.0%}")
    lines += [f"  {pair.second} − {pair.first}, on {pair.n:,} questions: {_estimate(pair.contrast)}" for pair in result.pairs]
    return lines


def _estimate(change: MeanChange | Contrast) -> str:
    return with_ends(change.value, change.ci_low, change.ci_high, "+.4f")
