"""What a run leaves in its JSON files, as typed objects: each field says its unit, its range and when it is null."""

from bitsure.results.attribution import Attribution
from bitsure.results.compressibility import Compressibility
from bitsure.results.costs import Costs
from bitsure.results.measurement import Comparison, Difference, Measurement, MetricsByTask
from bitsure.results.published import PublishedNumber
from bitsure.results.quantization import Quantization
from bitsure.results.result import Result, check, read, read_if_there, to_json, to_plain, write
from bitsure.results.run_files import Labels, Provenance, Status, SweepPlan
from bitsure.results.verdict import Verdict

__all__ = [
    "Attribution",
    "Comparison",
    "Compressibility",
    "Costs",
    "Difference",
    "Labels",
    "Measurement",
    "MetricsByTask",
    "Provenance",
    "PublishedNumber",
    "Quantization",
    "Result",
    "Status",
    "SweepPlan",
    "Verdict",
    "check",
    "read",
    "read_if_there",
    "to_json",
    "to_plain",
    "write",
]
