"""Does quantization hurt one model more than another? `python -m bitsure.family RUN_DIR RUN_DIR …`, from records alone.

That a change is significant for one model and not for another says nothing. What does: how much the changes vary beyond their
errors, and each pair of models on the questions that both were asked.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.comparison import changes
from bitsure.comparison.changes import Changes
from bitsure.comparison.compare import PRIMARY
from bitsure.config.schema import MetricSettings
from bitsure.metrics.across import Contrast, heterogeneity
from bitsure.metrics.across import contrasts as between
from bitsure.metrics.bootstrap import percentile_interval
from bitsure.records.joining import join
from bitsure.records.parquet import read_records


@dataclass(frozen=True)
class Run:
    """One quantized model, and by task what quantization changed in each question."""

    name: str
    changes: dict[str, Changes]


@dataclass(frozen=True)
class Change:
    """Of the mean true-label probability."""

    value: float
    ci_low: float
    ci_high: float
    standard_error: float


def mean_changes(runs: list[Run], metric: MetricSettings) -> dict[str, dict[str, Change]]:
    """{task: {run: its change}} of the tasks that a run was asked."""
    found: dict[str, dict[str, Change]] = {}
    for run in runs:
        for task, one in run.changes.items():
            means, replicates = changes.resampled_means([one], metric)
            drawn = replicates[PRIMARY][:, 0]
            interval = percentile_interval(drawn, metric.confidence_level)
            found.setdefault(task, {})[run.name] = Change(float(means[PRIMARY][0]), *interval, float(drawn.std()))
    return found


def contrasts(one: Run, other: Run, metric: MetricSettings) -> dict[str, tuple[Contrast, int]]:
    """{task: (the change of `other` less that of `one`, number of questions)} on the questions that both were asked.

    Questions are resampled with both models' answers, by their clusters.
    """
    found = {}
    for task in one.changes.keys() & other.changes.keys():
        both = changes.in_common(one.changes[task], other.changes[task])
        if n := len(both[0].question):
            means, replicates = changes.resampled_means(list(both), metric)
            [found[task]] = [
                (one, n) for one in between(means[PRIMARY], replicates[PRIMARY], [(0, 1)], metric.confidence_level)
            ]
    return found


def main(arguments: list[str] | None = None) -> None:
    from bitsure.report.__main__ import read_settings

    parser = argparse.ArgumentParser(prog="python -m bitsure.family", description=__doc__.splitlines()[0])
    parser.add_argument("directories", type=Path, nargs="+", metavar="RUN_DIR")
    given = parser.parse_args(arguments)
    try:
        metric, _ = read_settings(None, given.directories[0] / "config.yaml")
        show([_read(directory, metric) for directory in given.directories], metric)
    except UserError as error:
        sys.exit(f"Error: {error}")


def _read(directory: Path, metric: MetricSettings) -> Run:
    files = [directory / name for name in ("baseline.parquet", "records.parquet")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{directory} holds no {' and no '.join(missing)}: give run directories of quantized models.")
    return Run(directory.name, changes.of(join(*(read_records(file)[0] for file in files)), metric))


def show(runs: list[Run], metric: MetricSettings) -> None:
    """Print, per task, each model's change, what Q and I² say, and the contrasts of all pairs."""
    if len(runs) < 2 or len({run.name for run in runs}) < len(runs):
        raise UserError(f"{', '.join(run.name for run in runs)}: give two or more run directories of different names.")
    out, level = terminal.console(), metric.confidence_level
    pairs = {(a.name, b.name): contrasts(a, b, metric) for a, b in combinations(runs, 2)}
    for task, found in mean_changes(runs, metric).items():
        out.print(f"\n{task}: change of the mean true-label probability, {level:.0%} intervals", markup=False)
        for name, one in found.items():
            out.print(f"  {name}: {_said(one)}", markup=False)
        if spread := heterogeneity([one.value for one in found.values()], [one.standard_error for one in found.values()]):
            out.print(f"  Cochran's Q {spread.q:.2f} (p = {spread.p_value:.2g}), I² {spread.i_squared:.0%}", markup=False)
        for (a, b), by_task in pairs.items():
            if task in by_task:
                estimated, n = by_task[task]
                out.print(f"  {b} less {a}, on {n:,} questions: {_said(estimated)}", markup=False)


def _said(one: Change | Contrast) -> str:
    return f"{one.value:+.4f} [{one.ci_low:+.4f}, {one.ci_high:+.4f}]"


if __name__ == "__main__":
    main()
