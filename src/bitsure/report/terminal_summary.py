"""Print a run's headline numbers, its verdict, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bitsure.base import terminal
from bitsure.comparison.verdict_words import FULL_PRECISION_RUN, verdict_details
from bitsure.config.metric import MetricSettings
from bitsure.report import compressibility_table, published_table, tables
from bitsure.report.attribution_section import attribution_section
from bitsure.report.divergence_section import divergence_lines
from bitsure.report.fidelity_section import fidelity_section
from bitsure.report.recipe_command import recipe_command
from bitsure.report.report_contents import About, Report
from bitsure.report.retrieval_section import retrieval_sections
from bitsure.report.twin_sentences import twin_sentences
from bitsure.results import Comparison, Verdict
from bitsure.results.verdict import INFERIOR, NON_INFERIOR, NOT_JUDGED, UNDECIDED, Decision

STYLES: dict[Decision, str] = {NON_INFERIOR: "green", INFERIOR: "red", UNDECIDED: "yellow", NOT_JUDGED: "yellow"}


def show(report: Report, about: About, metric: MetricSettings, places: Mapping[str, object]) -> None:
    """Print a report on the terminal.

    Args:
        report: The numbers.
        about: The run's title and compressibility.
        metric: The settings that the numbers were computed with.
        places: What → where it is, printed last on a line each; what is None is left out.
    """
    out = terminal.console()
    _show_verdict(out, report.verdict)
    for line in about.first_lines:
        out.print(line, markup=False, highlight=False)
    terminal.show_table(
        out, tables.terminal_table(report.metrics, report.comparison, about.title, metric.confidence_level, metric.alpha)
    )
    if report.published:
        out.print()
        published_table.show(out, report.published)
    _show_tasks(out, report.comparison or {}, report.verdict)
    fidelity = fidelity_section(report.comparison)
    paragraphs = [divergence_lines(report.comparison), fidelity.sentences if fidelity else []]
    paragraphs.append(twin_sentences(report.metrics, report.comparison))
    paragraphs.append([section.sentence for section in retrieval_sections(report.metrics, report.comparison)])
    recipe = report.page.parent / "recipe.yaml"
    scores_recipe = _recipe_command(about, recipe)
    if about.attribution:
        labels = None if scores_recipe else about.labels
        paragraphs.append(attribution_section(about.attribution, labels, str(recipe.absolute())).sentences[1:])
    if about.compressibility:
        paragraphs.append([compressibility_table.sentence(about.compressibility)])
    if metric.paper_compat:
        paragraphs.append(["The study's own numbers, paper_compat/…, are on the page and in metrics.json."])
    _print(out, paragraphs)
    if scores_recipe:
        out.print("\nThis command scores the recipe's model:")
        out.print(scores_recipe, markup=False, highlight=False, soft_wrap=True)  # it is copied whole
    out.print()
    for what, place in places.items():
        if place is not None:
            out.print(f"{what:10} {place}", markup=False, soft_wrap=True)  # a path is copied whole


def _recipe_command(about: About, recipe: Path) -> str | None:
    """Return the command that scores the recipe of a run's attribution; None without one, or where it is not known."""
    if about.attribution is None or about.attribution.kept_layers is None or about.provenance is None:
        return None
    return recipe_command(about.provenance.command, about.labels.preset if about.labels else None, recipe)


def show_comparison(
    comparison: Comparison, verdict: Verdict, names: tuple[str, str], metric: MetricSettings, baseline: str
) -> None:
    """Print a comparison and its verdict on the terminal.

    Args:
        comparison: The second run against the first.
        verdict: Its verdict.
        names: What the title calls the first and the second run.
        metric: The settings that the numbers were computed with.
        baseline: What sentences call the first run.
    """
    out = terminal.console()
    _show_verdict(out, verdict)
    (first, second), sides = names, ("full", "quantized")
    if baseline != FULL_PRECISION_RUN:
        sides = ("first", "second")
        first, second = f"{first} (first)", f"{second} (second)"
    title = f"{second} against {first}"
    terminal.show_table(out, tables.terminal_table({}, comparison, title, metric.confidence_level, metric.alpha, sides))
    _show_tasks(out, comparison, verdict, baseline)
    _print(out, [twin_sentences({}, comparison)])


def _show_verdict(out: Console, verdict: Verdict | None) -> None:
    """Print the overall verdict, coloured, with its sentence and what would settle it."""
    if verdict:
        head = Text.assemble("Verdict: ", (verdict.badge, f"bold {STYLES[verdict.verdict]}"))
        out.print(head, *filter(None, [Text(verdict.sentence), Text(verdict.settles), "\n"]), sep="\n", end="")


def _show_tasks(out: Console, comparison: Comparison, verdict: Verdict | None, baseline: str = FULL_PRECISION_RUN) -> None:
    """Print what was not compared, and the details of the verdict, each task's coloured."""
    _print(out, [tables.unjoined(comparison, baseline)])
    if verdict:
        for heading, details in verdict_details(verdict).items():
            out.print(f"\n{heading}", markup=False, highlight=False)
            for detail in details:
                line = Text(f"- {detail}")
                for decision, style in STYLES.items():
                    line.highlight_regex(rf"(?<=: ){decision}(?=\.|$)", f"bold {style}")
                out.print(line)


def _print(out: Console, paragraphs: Sequence[Sequence[str]]) -> None:
    for lines in filter(None, paragraphs):
        out.print("\n" + "\n".join(lines), markup=False)
