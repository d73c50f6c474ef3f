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

import numpy as np

from bitsure import records, terminal
from bitsure.config import Metric
from bitsure.errors import UserError
from bitsure.metrics import Sample
from bitsure.metrics.confidence import questions
from bitsure.metrics.statistics import Estimate, estimate, mean
from bitsure.records import Records, by_task, join


@dataclass(frozen=True)
class Run:
    """One model in full precision and quantized, asked the same questions."""

    name: str
    baseline: Records
    quantized: Records


@dataclass(frozen=True)
class Heterogeneity:
    """Cochran's Q of k changes (its p-value by χ² with k − 1 degrees of freedom), and I² in [0, 1]."""

    q: float
    p_value: float
    i_squared: float


def changes(runs: list[Run], metric: Metric) -> dict[str, dict[str, Estimate]]:
    """{task: {run: the change of the mean true-label probability}} of the tasks that a run was asked."""
    found: dict[str, dict[str, Estimate]] = {}
    for run in runs:
        joined = join(run.baseline, run.quantized)
        before = by_task(joined.baseline)
        for task, after in by_task(joined.quantized).items():
            found.setdefault(task, {})[run.name] = _mean(_change(before[task], after, metric), Sample.of(after, metric))
    return found


def heterogeneity(estimates: list[Estimate]) -> Heterogeneity | None:
    """How much changes differ beyond their standard errors (Cochran 1954; Higgins & Thompson 2002); None of fewer than two.

    Q takes the models' errors for independent. Those of models that were asked the same questions go together, which makes Q
    too small: the contrasts do not have that fault.
    """
    from scipy.stats import chi2

    known = [one for one in estimates if one.standard_error > 0]
    if len(known) < 2:
        return None
    values = np.array([one.value for one in known])
    weights = np.array([one.standard_error for one in known]) ** -2.0
    q = float((weights * (values - (weights * values).sum() / weights.sum()) ** 2).sum())
    freedom = len(known) - 1
    return Heterogeneity(q, float(chi2.sf(q, freedom)), max(0.0, 1 - freedom / q) if q else 0.0)


def contrasts(one: Run, other: Run, metric: Metric) -> dict[str, tuple[Estimate, int]]:
    """{task: (the change of `other` less that of `one`, number of questions)} on the questions that both were asked.

    Questions are resampled with both models' answers, by their clusters. Raises UserError if no question is in both.
    """
    both = join(join(one.baseline, one.quantized).quantized, join(other.baseline, other.quantized).quantized)
    sides = [
        (by_task(join(run.baseline, after).baseline), by_task(after))
        for run, after in ((one, both.baseline), (other, both.quantized))
    ]
    found = {}
    for task, after in sides[0][1].items():
        first, second = (_change(before[task], quantized[task], metric) for before, quantized in sides)
        found[task] = _mean(second - first, Sample.of(after, metric)), len(after)
    return found


def _change(before: Records, after: Records, metric: Metric) -> np.ndarray:
    full, quantized = (questions(side, metric.normalization) for side in (before, after))
    return quantized.true_label_prob - full.true_label_prob


def _mean(values: np.ndarray, sample: Sample) -> Estimate:
    return estimate({"mean": mean(lambda x: x)}, values, sample.weights, sample.clusters)["mean"]


def main(arguments: list[str] | None = None) -> None:
    from bitsure.report.__main__ import read_settings

    parser = argparse.ArgumentParser(prog="python -m bitsure.family", description=__doc__.splitlines()[0])
    parser.add_argument("directories", type=Path, nargs="+", metavar="RUN_DIR")
    given = parser.parse_args(arguments)
    try:
        metric, _ = read_settings(None, given.directories[0] / "config.yaml")
        show([_read(directory) for directory in given.directories], metric)
    except UserError as error:
        sys.exit(f"Error: {error}")


def _read(directory: Path) -> Run:
    files = [directory / name for name in ("baseline.parquet", "records.parquet")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{directory} holds no {' and no '.join(missing)}: give run directories of quantized models.")
    return Run(directory.name, *(records.read(file)[0] for file in files))


def show(runs: list[Run], metric: Metric) -> None:
    """Print, per task, each model's change, what Q and I² say, and the contrasts of all pairs."""
    if len(runs) < 2 or len({run.name for run in runs}) < len(runs):
        raise UserError(f"{', '.join(run.name for run in runs)}: give two or more run directories of different names.")
    out, level = terminal.console(), metric.confidence_level
    pairs = {(a.name, b.name): contrasts(a, b, metric) for a, b in combinations(runs, 2)}
    for task, found in changes(runs, metric).items():
        out.print(f"\n{task}: change of the mean true-label probability, {level:.0%} intervals", markup=False)
        for name, one in found.items():
            out.print(f"  {name}: {_said(one, level)}", markup=False)
        if spread := heterogeneity(list(found.values())):
            out.print(f"  Cochran's Q {spread.q:.2f} (p = {spread.p_value:.2g}), I² {spread.i_squared:.0%}", markup=False)
        for (a, b), contrast in pairs.items():
            if task in contrast:
                estimated, n = contrast[task]
                out.print(f"  {b} less {a}, on {n:,} questions: {_said(estimated, level)}", markup=False)


def _said(one: Estimate, level: float) -> str:
    low, high = one.interval(level)
    return f"{one.value:+.4f} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    main()
