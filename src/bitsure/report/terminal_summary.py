"""Print a run's headline numbers, its verdict, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from bitsure.base import terminal
from bitsure.comparison.non_inferiority import FULL_PRECISION_RUN, verdict_sentences
from bitsure.config.schema import MetricSettings
from bitsure.report import compressibility_table, published_table, tables
from bitsure.report.report_contents import About, Report
from bitsure.results import Comparison, Verdict


def show(report: Report, about: About, metric: MetricSettings, places: Mapping[str, object]) -> None:
    """Print a report on the terminal.

    Args:
        report: The numbers.
        about: The run's title and compressibility.
        metric: The settings that the numbers were computed with.
        places: What → where it is, printed last on a line each; what is None is left out.
    """
    out = terminal.console()
    for line in about.first_lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(tables.terminal_table(report.metrics, report.comparison, about.title, metric.confidence_level, metric.alpha))
    if report.published:
        out.print()
        published_table.show(out, report.published)
    paragraphs = _outcome(report.comparison, report.verdict)
    if about.compressibility:
        paragraphs.append([compressibility_table.sentence(about.compressibility)])
    if metric.paper_compat:
        paragraphs.append(["The study's own numbers, paper_compat/…, are on the page and in metrics.json."])
    paragraphs.append([f"{what:10} {place}" for what, place in places.items() if place is not None])
    _print(out, paragraphs)


def show_comparison(comparison: Comparison, verdict: Verdict, title: str, metric: MetricSettings, baseline: str) -> None:
    """Print a comparison and its verdict on the terminal; `baseline` is what the first run is called."""
    out = terminal.console()
    sides = ("full", "quantized") if baseline == FULL_PRECISION_RUN else ("first", "second")
    out.print(tables.terminal_table({}, comparison, title, metric.confidence_level, metric.alpha, sides))
    _print(out, _outcome(comparison, verdict, baseline))


def _outcome(comparison: Comparison | None, verdict: Verdict | None, baseline: str = FULL_PRECISION_RUN) -> list[list[str]]:
    """Return paragraphs about what was not compared, and the verdict."""
    paragraphs = [tables.unjoined(comparison or {}, baseline)]
    if verdict:
        paragraphs.append([f"Verdict: {verdict.verdict}", *(f"- {sentence}" for sentence in verdict_sentences(verdict))])
    return paragraphs


def _print(out: Console, paragraphs: Sequence[Sequence[str]]) -> None:
    for lines in filter(None, paragraphs):
        out.print("\n" + "\n".join(lines), markup=False, soft_wrap=True)
