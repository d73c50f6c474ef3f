"""The top of a sweep's page: what may be shipped, in a sentence for each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bitsure.results.verdict import Decision
from bitsure.sweep.report.cell_results import CellResult
from bitsure.sweep.report.choices import BY_ACCURACY, MORE_QUESTIONS, OWN_VERDICT, ModelChoice, badge, notes, others, reason

CANDIDATE_COLUMNS = (
    "quantizer",
    "size",
    "change of accuracy",
    BY_ACCURACY,
    OWN_VERDICT,
    MORE_QUESTIONS,
)


@dataclass(frozen=True)
class HeadChoice:
    """The choice for one model, as text.

    Attributes:
        model: The model's name.
        outcome: See `ModelChoice.outcome`.
        badge: The choice in few words.
        reason: Why, with the numbers.
        over: What the candidates' changes are the mean of.
        links: Label and report of each cell of the chosen quantizer.
        others: Heading and labels of the candidates that are not chosen.
        candidates: A row for each candidate under CANDIDATE_COLUMNS.
        notes: What the choice rests on.
    """

    model: str
    outcome: Decision
    badge: str
    reason: str
    over: str
    links: list[tuple[str, str]]
    others: list[tuple[str, str]]
    candidates: list[tuple[str, ...]]
    notes: list[str]


def head_choice(choice: ModelChoice) -> HeadChoice:
    """Return one model's choice as the page shows it."""
    chosen = choice.chosen
    cells = chosen.candidate.cells if chosen else []
    return HeadChoice(
        model=choice.model.label,
        outcome=choice.outcome,
        badge=badge(choice),
        reason=reason(choice),
        over=choice.over,
        links=[(cell.path, cell.report_link) for cell in cells if cell.report_link],
        others=list(others(choice)),
        candidates=[(judged.label, judged.size, *judged.answers, judged.more_questions) for judged in choice.judged],
        notes=list(notes(choice)),
    )


def dates(cells: Sequence[CellResult]) -> str:
    """Return the day or the days on which cells were started; empty where that is not known."""
    started = sorted(cell.started for cell in cells if cell.started is not None)
    days = [datetime.fromtimestamp(second, UTC) for second in (*started[:1], *started[-1:])]
    return " to ".join(dict.fromkeys(f"{day.day} {day:%B %Y}" for day in days))
