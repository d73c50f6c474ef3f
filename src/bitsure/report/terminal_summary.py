"""Print a run's headline numbers, its verdict, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.base import terminal
from bitsure.comparison.non_inferiority import verdict_sentences
from bitsure.config.schema import MetricSettings
from bitsure.report import compressibility_table, published_table, tables
from bitsure.report.run_report import About, Report


def show(report: Report, about: About, metric: MetricSettings, places: Mapping[str, object]) -> None:
    """Print a report on the terminal.

    Args:
        report: The numbers.
        about: The run's title and compressibility.
        metric: The settings that the numbers were computed with.
        places: What → where it is, printed last on a line each; what is None is left out.
    """
    out = terminal.console()
    out.print(tables.terminal_table(report.metrics, report.comparison, about.title, metric.confidence_level, metric.alpha))
    if report.published:
        out.print()
        published_table.show(out, report.published)
    paragraphs = [tables.unjoined(report.comparison or {})]
    if report.verdict:
        reasons = [f"- {sentence}" for sentence in verdict_sentences(report.verdict)]
        paragraphs.append([f"Verdict: {report.verdict.verdict}", *reasons])
    if about.compressibility:
        paragraphs.append([compressibility_table.sentence(about.compressibility)])
    if metric.paper_compat:
        paragraphs.append(["The study's own numbers, paper_compat/…, are on the page and in metrics.json."])
    paragraphs.append([f"{what:8} {place}" for what, place in places.items() if place is not None])
    for lines in filter(None, paragraphs):
        out.print("\n" + "\n".join(lines), markup=False, soft_wrap=True)
