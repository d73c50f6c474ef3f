"""From saved records to numbers, tables, pictures, verdict and a page: no model, no harness, no W&B."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from bitsure.base import processes
from bitsure.base.files import write_text
from bitsure.comparison import changes, verdict
from bitsure.comparison.compare import compare
from bitsure.comparison.published import find_published
from bitsure.config.schema import MetricSettings, VerdictSettings
from bitsure.metrics import measure as metrics
from bitsure.records.joining import join
from bitsure.records.record import Records, to_table
from bitsure.report import figures, page, samples
from bitsure.results import Comparison, MetricsByTask, PublishedNumber, Verdict, write

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What was computed of one run, and the files that show it."""

    metrics: MetricsByTask
    baseline_metrics: MetricsByTask | None
    comparison: Comparison | None
    verdict: Verdict | None
    figures: figures.Pictures
    published: list[PublishedNumber]  # numbers of papers beside those of this run
    page: Path


@dataclass(frozen=True)
class About:
    """What a report says of its run beside the numbers."""

    title: str
    quantization: dict | None = None  # quantization.json
    provenance: dict | None = None
    prompts: dict[tuple[str, int], str] | None = None  # by task and doc_id
    noisy: Sequence[Records] = ()  # the noise control's, one for each seed
    compressibility: dict | None = None  # compressibility.json
    task: dict | None = None  # the config's


OF_A_BASELINE = ("baseline_metrics.json", "comparison.json", "verdict.json", "published.json", "changes.parquet")


def build(
    out: Path,
    records: Records,
    baseline: Records | None,
    metric: MetricSettings,
    margins: VerdictSettings,
    about: About,
    artist: processes.Helper | None = None,
    beside: Callable[[], None] = lambda: None,
) -> Report:
    """Compute every number and write it, with pictures and page, into `out`: metrics.json (baseline_metrics.json,
    comparison.json, verdict.json, published.json), changes.parquet, figures/, report.html.

    artist: draws the pictures meanwhile; one that is made for it if none is given. beside: other work, done here while
    pictures are waited for.
    """
    left = max(1, (os.cpu_count() or 2) - 1)  # processors beside the one that draws, for which matrices would only wait
    with nullcontext(artist) if artist else processes.helper() as artist, threadpool_limits(left, "blas"):
        quantized, full = (None if one is None else to_table(one).select(figures.COLUMNS) for one in (records, baseline))
        pictures = [artist.submit(figures.of_records, quantized, full, metric, out / "figures")]
        bits = (about.quantization or {}).get("bits_per_weight")
        measured_baseline = compared = judged = changed = None
        if baseline is not None:
            compared = compare(baseline, records, metric, bits, about.noisy)
            pictures.append(artist.submit(figures.of_comparison, compared, out / "figures"))
            measured_baseline = metrics.measure(baseline, metric)
            judged = verdict.judge(compared, margins, metric.confidence_level)
            joined = join(baseline, records)
            changed = samples.most_changed(joined, about.prompts or {}, metric.normalization)
            changes.write(out / "changes.parquet", changes.of(joined, metric))
            for task, one in judged.tasks.items():
                if one.warning:
                    log.warning("%s: %s", task, one.warning)
        measured = metrics.measure(records, metric)
        provenance = about.provenance or {}
        model, weights = provenance.get("model", {}).get("name"), provenance.get("weights")
        printed = find_published(model, weights and weights["quant"], about.task or {}, measured, measured_baseline)
        beside()
        drawn = {kind: {} for kind in figures.KINDS}
        for some in pictures:
            drawn |= some()
    report = Report(measured, measured_baseline, compared, judged, drawn, printed, out / "report.html")
    html = page.render(report, about, changed, metric)  # before anything is written
    files = {
        "metrics.json": measured,
        "baseline_metrics.json": measured_baseline,
        "comparison.json": compared,
        "verdict.json": judged,
        "published.json": printed or None,
    }
    for name, value in files.items():
        if value is not None:
            write(out / name, value)
    write_text(report.page, html)
    return report
