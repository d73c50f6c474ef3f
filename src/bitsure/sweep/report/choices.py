"""The choice among the quantizers of each model of a sweep, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from bitsure.comparison.choosing import CandidateVerdict, QuantizerChoice, choose
from bitsure.comparison.settling import question_count, question_range
from bitsure.comparison.verdict_words import signed_change
from bitsure.config.metric import MetricSettings
from bitsure.metrics.estimation import FEWEST
from bitsure.results.verdict import INFERIOR, NON_INFERIOR, NOT_JUDGED, UNDECIDED, Decision
from bitsure.sweep.report.candidates import NO_ACCURACY, Candidate, ModelCandidates, losses_in_common, read_candidates
from bitsure.sweep.report.cell_changes import CellChanges
from bitsure.sweep.report.cell_results import CellResult

MOST_NAMED = 8  # candidates in a sentence
BY_ACCURACY, OWN_VERDICT, MORE_QUESTIONS = "by accuracy", "own verdict", "more questions"  # columns of the table of candidates


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
        """The verdict on its accuracy that allows for the selection."""
        return self.result.verdict

    @property
    def worse_in(self) -> list[str]:
        """The metrics besides accuracy in which a cell's own verdict finds it surely worse, in words."""
        return self.candidate.other_losses(INFERIOR)

    @property
    def is_worse(self) -> bool:
        """Whether it is surely worse in any metric."""
        return self.verdict == INFERIOR or bool(self.worse_in)

    @property
    def size(self) -> str:
        """Megabytes on disk, and bits per weight."""
        columns = self.candidate.columns
        size = "" if columns.size_bytes is None else f"{columns.size_bytes / 1e6:.3g} MB"
        bits = "" if columns.bits_per_weight is None else f"{columns.bits_per_weight:.2f} bits"
        return ", ".join(filter(None, (size, bits)))

    @property
    def change(self) -> str:
        """The change of accuracy, quantized − full precision, with its simultaneous interval."""
        low, high = -self.result.ci_high + 0.0, -self.result.ci_low + 0.0  # no −0
        return signed_change(-self.result.loss, None if math.isnan(low) else (low, high))

    @property
    def answers(self) -> tuple[str, str, str]:
        """The change of accuracy, the verdict on it, and the verdict of the candidate's own run."""
        return self.change, self.verdict, self.candidate.own_verdict or "–"

    @property
    def more_questions(self) -> str:
        """How many more questions show it to be within the margin, with an interval; empty where it is decided."""
        if (needed := self.result.needed) is None:
            return ""
        return f"{question_count(needed.if_lossless)} [{question_count(needed.low)}, {question_count(needed.high)}]"

    @property
    def with_worse(self) -> str:
        """The label of a candidate that is surely worse, with the metrics if accuracy is not among them."""
        return self.label if self.verdict == INFERIOR else f"{self.label} ({', '.join(self.worse_in)})"

    @property
    def with_questions(self) -> str:
        """The label of an undecided candidate, with the questions that would settle it."""
        needed = self.result.needed
        if needed is None:
            return f"{self.label} (too few questions to say how many more)"
        return f"{self.label} ({question_range(needed)} more questions)"


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
        if self.choice is None:
            return []
        return [JudgedCandidate(*pair) for pair in zip(self.model.candidates, self.choice.candidates, strict=True)]

    @property
    def accurate(self) -> list[JudgedCandidate]:
        """The candidates whose loss of accuracy is surely within the margin, the smallest first."""
        judged = self.judged
        return [judged[i] for i in self.choice.fit] if self.choice else []

    @property
    def over(self) -> str:
        """What the changes are the mean of: the tasks that the choice goes by, such as `over the 3 tasks above guessing`."""
        tasks = f"{len(self.tasks)} task{'s' * (len(self.tasks) != 1)}"
        return f"over the {tasks} above guessing" if self.model.guessing else f"over {tasks}"

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
        return (judged for judged in self.accurate if not judged.is_worse)

    @property
    def unsettled(self) -> list[str]:
        """The metrics besides accuracy that the chosen one's own verdict leaves undecided, in words."""
        return self.chosen.candidate.other_losses(UNDECIDED) if self.chosen else []

    @property
    def outcome(self) -> Decision:
        """Non-inferior where the chosen one is so on all metrics, inferior where all are surely worse, else undecided.

        Not judged where nothing can be.
        """
        if self.choice is None:
            return NOT_JUDGED
        if self.chosen is not None:
            return UNDECIDED if self.unsettled else NON_INFERIOR
        return INFERIOR if all(judged.is_worse for judged in self.judged) else UNDECIDED

    @property
    def why_nothing(self) -> str | None:
        """Why nothing can be judged; None where something can."""
        if self.choice is not None:
            return None
        if not self.model.candidates:
            if not any(reason.startswith(NO_ACCURACY) for reason in self.model.not_judged.values()):
                return "no candidate can be judged"
            return (
                "a choice goes by accuracy, which none of these runs has; the KL divergence and perplexity of texts are on "
                "sweep.html"
            )
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
        return NOT_JUDGED
    if choice.chosen is not None:
        return f"choose {choice.chosen.label}{' by accuracy alone' if choice.unsettled else ''}"
    return "none may be shipped" if choice.outcome == INFERIOR else "no choice yet"


def reason(choice: ModelChoice) -> str:
    """Return why that is the choice, in a sentence."""
    if why := choice.why_nothing:
        return f"{why[0].upper()}{why[1:]}."
    if (chosen := choice.chosen) is None:
        if choice.outcome == INFERIOR:
            return "Every candidate is surely worse than a margin allows."
        but = " without being surely worse in something else" if choice.accurate else ""
        return f"No candidate surely loses less than {choice.margin:g} of accuracy {choice.over}{but}."
    unsettled = f" Its own verdict leaves undecided: {', '.join(choice.unsettled)}." if choice.unsettled else ""
    return (
        f"Of {len(choice.judged)} it is the smallest that surely loses less than {choice.margin:g} of accuracy "
        f"({chosen.change} {choice.over}) and is surely worse in nothing else.{unsettled}"
    )


def others(choice: ModelChoice) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of the candidates that are not chosen: a heading and the candidates."""
    if choice.choice is None:
        return
    if choice.chosen is not None:
        yield "Runner-up", choice.runner_up.label if choice.runner_up else "none"
    undecided = [judged for judged in choice.judged if judged.verdict == UNDECIDED and not judged.is_worse]
    yield "Surely worse", _named([judged.with_worse for judged in choice.judged if judged.is_worse])
    yield "Undecided in accuracy", _named([judged.with_questions for judged in undecided])


def notes(choice: ModelChoice) -> Iterator[str]:
    """Yield what the choice rests on, and what was left out of it."""
    model = choice.model
    if choice.choice is not None:
        names, questions = ", ".join(choice.tasks), sum(choice.tasks.values())
        yield (
            f"Mean over {names}: {questions:,} questions. Intervals and “{BY_ACCURACY}” hold for all candidates at once, at "
            f"{choice.level:.0%}, and allow for flips too rare to be seen, so that they are wider than those of each run. "
            f"“{OWN_VERDICT}” is that of each run by itself, on every metric."
        )
        if any(judged.result.needed for judged in choice.judged):
            yield (
                "More questions show with 80% power that a candidate is within the margin if it loses nothing (where it surely "
                "loses something: the least that its interval allows). 0: these were enough, so it probably loses something."
            )
        if choice.few:
            yield f"Nothing is decided: fewer than {FEWEST} questions, or clusters of them, in {', '.join(choice.few)}."
    if model.guessing:
        yield f"Not in the mean, because full precision is not above guessing there: {', '.join(model.guessing)}."
    for name, why in model.not_judged.items():
        yield f"Not judged: {name} ({why})."


def _named(labels: Sequence[str]) -> str:
    """Return the first labels, and how many more there are."""
    more = [f"{len(labels) - MOST_NAMED} more"] if len(labels) > MOST_NAMED else []
    return ", ".join([*labels[:MOST_NAMED], *more]) or "none"
