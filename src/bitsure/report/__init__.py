"""From saved records to numbers, tables, pictures and a page: no model, no harness, no W&B."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bitsure import metrics
from bitsure.compare import compare
from bitsure.config import Metric
from bitsure.records import Records
from bitsure.report import figures, page
from bitsure.store import write_text


@dataclass(frozen=True)
class Report:
    """What was computed of one run, and the files that show it."""

    metrics: dict
    baseline_metrics: dict | None
    comparison: dict | None
    figures: dict[str, Path]
    page: Path


def build(
    out: Path,
    title: str,
    records: Records,
    baseline: Records | None,
    metric: Metric,
    quantization: dict | None,
    provenance: dict,
) -> Report:
    """Compute every number and write it, with pictures and page, into `out`: metrics.json (baseline_metrics.json,
    comparison.json), figures/, report.html.
    """
    measured = metrics.measure(records, metric)
    measured_baseline = metrics.measure(baseline, metric) if baseline is not None else None
    compared = compare(baseline, records, metric) if baseline is not None else None
    pictures = figures.reliability_diagrams(records, baseline, metric, out / "figures")
    _write_json(out / "metrics.json", measured)
    if compared:
        _write_json(out / "baseline_metrics.json", measured_baseline)
        _write_json(out / "comparison.json", compared)
    alone = {"Quantized": measured, "Full precision": measured_baseline} if compared else {"Full precision": measured}
    html = page.render(title, alone, compared, quantization, provenance, pictures, metric.confidence_level, metric.alpha)
    write_text(out / "report.html", html)
    return Report(measured, measured_baseline, compared, pictures, out / "report.html")


def _write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
