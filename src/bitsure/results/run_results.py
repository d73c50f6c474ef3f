"""All result files of a finished run together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.results.attribution import Attribution
from bitsure.results.compressibility import Compressibility
from bitsure.results.costs import Costs
from bitsure.results.measurement import Comparison, MetricsByTask
from bitsure.results.published import PublishedNumber
from bitsure.results.quantization import Quantization
from bitsure.results.result import read_if_there
from bitsure.results.run_files import Provenance
from bitsure.results.verdict import Verdict

RESULT_FILES: dict[str, Any] = {
    "metrics.json": MetricsByTask,
    "provenance.json": Provenance,
    "baseline_metrics.json": MetricsByTask,
    "comparison.json": Comparison,
    "verdict.json": Verdict,
    "published.json": list[PublishedNumber],
    "quantization.json": Quantization,
    "compressibility.json": Compressibility,
    "attribution.json": Attribution,
    "costs.json": Costs,
}


def results_are_whole(run_dir: Path) -> bool:
    """Return whether a finished run's metrics.json is there, and whether all of its JSON files can be read."""
    try:
        for name, kind in RESULT_FILES.items():
            read_if_there(run_dir / name, kind)
    except UserError:
        return False
    return (run_dir / "metrics.json").is_file()
