"""The choice among the quantizers of each model of a sweep, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from bitsure.comparison.choosing import CandidateVerdict, QuantizerChoice, choose
from bitsure.comparison.verdict_words import question_count
from bitsure.config.schema import MetricSettings
from bitsure.metrics.estimation import FEWEST
from bitsure.results.verdict import INFERIOR, NON_INFERIOR, UNDECIDED, Decision
from bitsure.sweep.report.candidates import Candidate, ModelCandidates, losses_in_common, read_candidates
from bitsure.sweep.report.cell_changes import CellChanges
from bitsure.sweep.report.cell_results import CellResult

MOST_NAMED = 8  # candidates in a sentence


@dataclass(frozen=True)
class JudgedCandidate:
    """A candidate and the verdict on it."""

    candidate: Candidate
    result: CandidateVerdict

    @property
    def label(self) -> str:
        """What the quantizer is called among those of its model."""
        return self.candidate.label

    @property
    def verdict(self) -> Decision:
        """The verdict that allows for the selection."""
        return self.result.verdict

    @property
    def size(self) -> str:
        """Megabytes on disk, and bits per weight."""
        columns = self.candidate.columns
        size = "" if columns.size_bytes is None else f"{columns.size_bytes / 1e6:.3g} MB"
        bits = "" if columns.bits_per_weight is None else f"{columns.bits_per_weight:.2f} bits"
        return ", ".join(filter(None, (size, bits)))

    @property
    def loss(self) -> str:
        """The loss of accuracy with its simultaneous interval."""
        result = self.result
        if math.isnan(result.ci_low):
            return f"{result.loss + 0.0:+.4f}"
        return f"{result.loss + 0.0:+.4f} [{result.ci_low:+.4f}, {result.ci_high:+.4f}]"

    @property
    def more_if_lossless(self) -> str:
        """How many more questions show it to be within the margin if it loses nothing; empty where it is decided."""
        if (needed := self.result.needed) is None:
            return ""
        return f"{question_count(needed.if_lossless)} [{question_count(needed.low)}, {question_count(needed.high)}]"

    @property
    def more_at_this_loss(self) -> str:
        """The same if the true loss is the one seen."""
        return question_count(self.result.needed.at_loss_seen) if self.result.needed else ""

    @property
    def with_questions(self) -> str:
        """The label of an undecided candidate, with the questions that would settle it."""
        needed = self.result.needed
        if needed is None:
            return f"{self.label} (too few questions to say how many more)"
        return f"{self.label} ({question_count(needed.if_lossless or needed.at_loss_seen)} more questions)"


@dataclass(frozen=True)
class ModelChoice:
    """The choice among the quantizers of one model.

    Attributes:
        model: What may be chosen.
        tasks: Task → how many of its questions all candidates were asked.
        few: Tasks with so few of them, or of their clusters, that nothing is decided.
        choice: What is chosen; None where nothing can be judged.
        margin: The largest loss of accuracy that is small enough to ship.
        level: The confidence level of the simultaneous intervals.
    """

    model: ModelCandidates
    tasks: dict[str, int]
    few: list[str]
    choice: QuantizerChoice | None
    margin: float
    level: float

    @property
    def judged(self) -> list[JudgedCandidate]:
        """The candidates with their verdicts, the smallest first."""
        results = self.choice.candidates if self.choice else ()
        return [JudgedCandidate(*pair) for pair in zip(self.model.candidates, results, strict=False)]

    @property
    def accurate(self) -> list[JudgedCandidate]:
        """The candidates whose loss of accuracy is surely within the margin, the smallest first."""
        judged = self.judged
        return [judged[i] for i in self.choice.fit] if self.choice else []

    @property
    def passed_over(self) -> list[JudgedCandidate]:
        """Those of them that a cell's own verdict finds surely worse on another metric."""
        return [judged for judged in self.accurate if judged.candidate.other_losses(INFERIOR)]

    @property
    def chosen(self) -> JudgedCandidate | None:
        """The smallest candidate that is surely within the margin of accuracy, and surely worse on no other metric."""
        return next(self._eligible, None)

    @property
    def runner_up(self) -> JudgedCandidate | None:
        """The next larger one."""
        return next(islice(self._eligible, 1, None), None)

    @property
    def _eligible(self) -> Iterator[JudgedCandidate]:
        return (judged for judged in self.accurate if not judged.candidate.other_losses(INFERIOR))

    @property
    def unsettled(self) -> list[str]:
        """The metrics besides accuracy that the chosen one's own verdict leaves undecided, in words."""
        return self.chosen.candidate.other_losses(UNDECIDED) if self.chosen else []

    @property
    def outcome(self) -> Decision:
        """Non-inferior where the chosen one is so on all metrics, inferior where all are surely worse, else undecided."""
        if self.chosen is not None:
            return UNDECIDED if self.unsettled else NON_INFERIOR
        judged = self.judged
        worse = len(self.with_verdict(INFERIOR)) + len(self.passed_over)
        return INFERIOR if judged and worse == len(judged) else UNDECIDED

    def with_verdict(self, verdict: Decision) -> list[JudgedCandidate]:
        """Return the candidates that have a verdict."""
        return [judged for judged in self.judged if judged.verdict == verdict]

    @property
    def why_nothing(self) -> str | None:
        """Why nothing can be judged; None where something can."""
        if self.choice is not None:
            return None
        if not self.model.candidates:
            return "no candidate can be judged"
        if not self.tasks:
            return "full precision is not above guessing on any task"
        apart = [task for task, questions in self.tasks.items() if not questions]
        return f"no question of {', '.join(apart)} was put to all of {', '.join(c.label for c in self.model.candidates)}"


def choose_for_models(
    cells: Sequence[CellResult],
    changes: CellChanges,
    metric: MetricSettings,
    margin: float,
    max_bytes: int | None = None,
) -> list[ModelChoice]:
    """Return each model's smallest quantizer that is surely within the margin of accuracy and surely worse on no other metric.

    Args:
        cells: All cells of a sweep.
        changes: What reads their changes.
        metric: The level and the seed.
        margin: The largest loss of accuracy that is small enough to ship, in (0, 1).
        max_bytes: The largest size on disk that may be chosen; None for any.
    """
    choices = []
    for model in read_candidates(cells, changes, max_bytes):
        losses = {task: losses_in_common(task, model.candidates) for task in model.tasks if model.candidates}
        tasks, choice = {task: len(values.losses) for task, values in losses.items()}, None
        few = [task for task, values in losses.items() if tasks[task] and values.units < FEWEST]
        if tasks and all(tasks.values()):
            sizes = [candidate.size for candidate in model.candidates]
            choice = choose(list(losses.values()), sizes, margin, metric.confidence_level, metric.seed)
        choices.append(ModelChoice(model, tasks, few, choice, margin, metric.confidence_level))
    return choices


def summary(choices: Sequence[ModelChoice]) -> str:
    """Return for how many models a quantizer may be shipped, where there are several models; else nothing."""
    if len(choices) < 2:
        return ""
    chosen = [choice for choice in choices if choice.chosen is not None]
    return (
        f"{len(chosen)} of {len(choices)} models have a quantizer whose loss of accuracy is surely below "
        f"{choices[0].margin:g}, the selection among all candidates allowed for."
    )


def badge(choice: ModelChoice) -> str:
    """Return the choice for one model in few words."""
    if choice.choice is None:
        return "nothing to choose"
    if choice.chosen is not None:
        return f"choose {choice.chosen.label}{' by accuracy alone' if choice.unsettled else ''}"
    return "none may be shipped" if choice.outcome == INFERIOR else "no choice yet"


def reason(choice: ModelChoice) -> str:
    """Return why that is the choice, in a sentence."""
    if why := choice.why_nothing:
        return f"{why[0].upper()}{why[1:]}."
    chosen, passed_over = choice.chosen, ""
    if choice.passed_over:
        worse = (f"{judged.label} ({', '.join(judged.candidate.other_losses(INFERIOR))})" for judged in choice.passed_over)
        passed_over = f"; passed over for another loss surely beyond its margin: {_named(list(worse))}"
    if chosen is None and passed_over:
        return f"None that surely loses less than {choice.margin:g} of accuracy may be shipped{passed_over}."
    if chosen is None:
        every = "Every candidate surely loses more" if choice.outcome == INFERIOR else "No candidate surely loses less"
        return f"{every} than {choice.margin:g} of accuracy."
    unsettled = f" Its own verdict leaves undecided: {', '.join(choice.unsettled)}." if choice.unsettled else ""
    return (
        f"Of {len(choice.judged)} it is the smallest whose loss of accuracy is surely below {choice.margin:g}: {chosen.loss}"
        f"{passed_over}.{unsettled}"
    )


def others(choice: ModelChoice) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of the candidates that are not chosen: a heading and the candidates."""
    if choice.choice is None:
        return
    if choice.chosen is not None:
        yield "Runner-up", choice.runner_up.label if choice.runner_up else "none"
    yield "Surely worse", _named([judged.label for judged in choice.with_verdict(INFERIOR)])
    yield "Undecided", _named([judged.with_questions for judged in choice.with_verdict(UNDECIDED)])


def notes(choice: ModelChoice) -> Iterator[str]:
    """Yield what the choice rests on, and what was left out of it."""
    model = choice.model
    if choice.choice is not None:
        names, questions = ", ".join(choice.tasks), sum(choice.tasks.values())
        yield f"Mean over {names}: {questions:,} questions. Intervals hold for all candidates at once, at {choice.level:.0%}."
        if choice.few:
            yield f"Nothing is decided: {', '.join(choice.few)} has fewer than {FEWEST} questions, or clusters of them."
    if model.guessing:
        yield f"Not in the mean, because full precision is not above guessing there: {', '.join(model.guessing)}."
    for name, why in model.not_judged.items():
        yield f"Not judged: {name} ({why})."


def _named(labels: Sequence[str]) -> str:
    """Return the first labels, and how many more there are."""
    more = [f"{len(labels) - MOST_NAMED} more"] if len(labels) > MOST_NAMED else []
    return ", ".join([*labels[:MOST_NAMED], *more]) or "none"
