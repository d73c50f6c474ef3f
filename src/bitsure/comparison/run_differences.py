"""Two runs from their directories, compared on the same questions."""

from __future__ import annotations

from threadpoolctl import threadpool_limits

from bitsure.comparison.differences import compare
from bitsure.comparison.non_inferiority import judge
from bitsure.comparison.verdict_words import FULL_PRECISION_RUN
from bitsure.config.metric import MetricSettings
from bitsure.config.schema import VerdictSettings
from bitsure.records.saved_run import SavedRun, check_harness_versions
from bitsure.results import Comparison, Verdict


def compare_runs(
    baseline: SavedRun, run: SavedRun, metric: MetricSettings, margins: VerdictSettings
) -> tuple[Comparison, Verdict]:
    """Return the differences run − baseline, and whether the run's model may be shipped.

    Args:
        baseline: The records to compare with, usually of full precision.
        run: The other model's records.
        metric: How records become numbers.
        margins: The largest losses that are small enough to ship.

    Raises:
        UserError: If the runs have no question in common, or different versions of the harness scored them.
    """
    check_harness_versions(baseline, run)
    with threadpool_limits(1, "blas"):  # the last digit of a sum depends on how many threads share it
        comparison = compare(baseline.records, run.records, metric, run.bits_per_weight, baseline_bits=baseline.bits_per_weight)
    return comparison, judge(comparison, margins, metric, baseline=baseline_name(baseline, run))


def baseline_name(baseline: SavedRun, run: SavedRun) -> str:
    """Return what sentences call the first of two runs: full precision only where the other one alone is known as quantized."""
    return FULL_PRECISION_RUN if baseline.bits_per_weight is None and run.bits_per_weight is not None else "the first run"
