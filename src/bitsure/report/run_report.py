"""Build a run's report from its records: numbers, verdict, figures and page. It needs no model, no harness and no W&B."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from bitsure.base.files import write_text
from bitsure.comparison import compare, judge
from bitsure.comparison.changes import AnswerChanges, answer_changes, write_changes
from bitsure.comparison.published_numbers import find_published
from bitsure.config.metric import MetricSettings
from bitsure.config.schema import VerdictSettings
from bitsure.metrics import measure
from bitsure.records.joining import join
from bitsure.records.record import Records
from bitsure.report import figures, page, samples
from bitsure.report.report_contents import About, Report
from bitsure.results import MetricsByTask, PublishedNumber, write

BASELINE_FILES = ("baseline_metrics.json", "comparison.json", "verdict.json", "published.json", "changes.parquet")


def build(
    out: Path, records: Records, baseline: Records | None, metric: MetricSettings, margins: VerdictSettings, about: About
) -> Report:
    """Compute every number of a run, draw the figures, and write both.

    Args:
        out: The directory to write to: metrics.json, figures/ and report.html; with a baseline also baseline_metrics.json,
            comparison.json, verdict.json, published.json and changes.parquet.
        records: The run's records.
        baseline: Records of the same questions in full precision; None for a full-precision run.
        metric: How records become numbers.
        margins: The largest losses that are small enough to ship.
        about: What else the page shows.

    Returns:
        The numbers, and where the figures and the page are.

    Raises:
        UserError: If the two runs have no question in common, or the records lack what `metric` needs.
    """
    with threadpool_limits(1, "blas"):  # the last digit of a sum depends on how many threads share it
        report = _compute(out, records, baseline, metric, margins, about)
    if about.has_page:
        pictures = figures.draw(records, baseline, report, metric, out / "figures", about.attribution)
        report = replace(report, figures=pictures)
        write_text(report.page, page.render(report, about, metric))
    _write(out, report)
    return report


def _compute(
    out: Path, records: Records, baseline: Records | None, metric: MetricSettings, margins: VerdictSettings, about: About
) -> Report:
    measured = measure(records, metric)
    baseline_metrics = comparison = judged = changed_most = None
    changed: dict[str, AnswerChanges] = {}
    if baseline is not None:
        bits = about.quantization.bits_per_weight if about.quantization else None
        comparison = compare(baseline, records, metric, bits, about.noisy, about.baseline_bits)
        baseline_metrics = measure(baseline, metric)
        questions = about.provenance.questions if about.provenance else None
        judged = judge(comparison, margins, metric, about.noise_scale, questions=questions)
        joined = join(baseline, records)
        changed_most = samples.most_changed(joined, about.prompts or {}, metric)
        changed = answer_changes(joined, metric)
    return Report(
        metrics=measured,
        baseline_metrics=baseline_metrics,
        comparison=comparison,
        verdict=judged,
        published=_published(about, measured, baseline_metrics),
        changes=changed,
        changed_most=changed_most,
        figures={},
        page=out / "report.html",
    )


def _published(about: About, measured: MetricsByTask, baseline: MetricsByTask | None) -> list[PublishedNumber]:
    origin = about.provenance
    if origin is None or origin.model is None:
        return []
    quant = origin.weights.get("quant") if origin.weights is not None else None
    if origin.weights is not None and not isinstance(quant, dict):
        return []  # a foreign file that does not say how the weights were quantized
    return find_published(origin.model.name, quant, about.task or {}, measured, baseline, origin.text)


def _write(out: Path, report: Report) -> None:
    if report.comparison is not None:
        write_changes(out / "changes.parquet", report.changes)
    files = {
        "metrics.json": report.metrics,
        "baseline_metrics.json": report.baseline_metrics,
        "comparison.json": report.comparison,
        "verdict.json": report.verdict,
        "published.json": report.published or None,
    }
    for name, value in files.items():
        if value is not None:
            write(out / name, value)
