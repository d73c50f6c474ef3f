"""verdict.json: whether the quantized model may be shipped."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bitsure.results.measurement import Number
from bitsure.results.result import Result

Decision = Literal["non-inferior", "inferior", "undecided", "not judged"]
NON_INFERIOR: Decision = "non-inferior"
INFERIOR: Decision = "inferior"
UNDECIDED: Decision = "undecided"
NOT_JUDGED: Decision = "not judged"
Place = Literal["worse", "within", "better", "below", "above"]
BADGES: dict[Decision, str] = {
    NON_INFERIOR: "non-inferior (within the margins)",
    INFERIOR: "inferior (beyond a margin)",
    UNDECIDED: UNDECIDED,
    NOT_JUDGED: NOT_JUDGED,
}
UNCHANGED = "nothing changed"


class QuestionsNeeded(Result):
    """How many more questions show with 80% power that the loss is within its margin, in the proportions of the tasks."""

    if_lossless: Number
    """If nothing is lost in truth; of a metric that surely lost something, if it lost the least that its interval allows. 0
    where the questions asked were enough for that; null where no number is."""
    low: Number
    """The lower end of its interval, which counts how uncertain the paired variance and the margin of calibration are; null
    where that is unknown."""
    high: Number
    """The upper end of its interval; null where that is unknown, or no number is enough."""
    at_loss_seen: Number = None
    """Written by earlier versions: the same if the true loss is the one seen."""


class MarginVerdict(Result):
    """One metric, held against its margin."""

    verdict: Decision
    """Non-inferior where the interval's upper end is below the margin, inferior where its lower end is above."""
    loss: float
    """How much worse the quantized model is, in the metric's unit; negative where it is better."""
    ci_low: Number
    """The lower end of the loss's interval; null where the questions are too few for one."""
    ci_high: Number
    """The upper end of the loss's interval; null where the questions are too few for one."""
    margin: float
    """The largest loss that is small enough to ship, in the metric's unit, above 0."""
    n: int
    """How many questions were compared."""
    n_clusters: int | None = None
    """How many clusters the questions come in; absent where every question is alone."""
    n_tasks: int | None = None
    """How many tasks the loss is the mean of; absent for one."""
    decidable_margin: Number = None
    """The smallest margin within which these questions show with 80% power a model that lost nothing, or the least that the
    interval allows; null for too few questions."""


class TaskVerdict(Result):
    """The verdict on one task, adjusted for the number of tasks."""

    verdict: Decision
    """Not judged if it takes no part in the overall verdict; else inferior if any metric is, non-inferior if all are, or
    undecided."""
    sentence: str
    """The verdict with the changes that decide it, or why there is none."""
    warning: str | None
    """Why it takes no part in the overall verdict, such as a model that guesses; null where it does."""
    margins: dict[str, MarginVerdict]
    """Metric → its verdict; empty where no question was compared."""
    smallest_detectable: float | None
    """The change that the task's test finds with 80% power; null where there is no test."""
    level: float | None = None
    """The confidence level of the intervals in `margins`: that of Holm's step for this task; null where nothing is judged."""
    questions_needed: QuestionsNeeded | None = None
    """What would decide; null where the verdict is decided, or the questions are too few for a forecast."""


class NoiseVerdict(Result):
    """Where the quantized model lies within what noise of the same output error does."""

    places: dict[str, Place | None]
    """Metric → within the noise's range, better or worse than it, or below or above it where no direction is the better one;
    null where the number does not exist."""
    sentence: str
    """The same in words."""


class Verdict(Result):
    """verdict.json."""

    verdict: Decision
    """The verdict on all tasks together: not judged where no task takes part; else inferior if any metric of `margins` is,
    non-inferior if all are, or undecided."""
    sentence: str = ""
    """Whether the model may be shipped and what limits that."""
    settles: str = ""
    """How many more questions would settle it and the margin that those asked can settle; empty where it is settled."""
    margins: dict[str, MarginVerdict] = Field(default_factory=dict)
    """Metric → the mean of its loss over the tasks that take part and have it, against its margin; empty where no task does.
    `nll` is of a question's answer; the NLL of whole texts, of a token, is `nll_per_token`."""
    n: int = 0
    """How many questions the tasks that take part have."""
    excluded: dict[str, str] = Field(default_factory=dict)
    """Task → why it takes no part: full precision is not above guessing (of a text: its NLL is not below ln of the vocabulary's
    size), or no question was compared."""
    questions_needed: QuestionsNeeded | None = None
    """What would decide; null where the verdict is decided, or the questions are too few for a forecast."""
    decidable_margin: Number = None
    """Where undecided: the margin that the metric in most need of questions can settle with those asked, in its unit."""
    unchanged: bool = False
    """Whether all records that were compared are equal in both runs; `verdict` then is about other questions."""
    strict: bool
    """Whether the run was to fail unless it is non-inferior (`verdict=strict`)."""
    level: float
    """The confidence level of the overall intervals, in (0, 1)."""
    noise_control: dict[str, NoiseVerdict] | None
    """Task → its place within the noise control; null where none was scored."""
    tasks: dict[str, TaskVerdict]
    """Task → its verdict."""

    @property
    def badge(self) -> str:
        """The verdict as a badge shows it; `verdict` alone where there is little room."""
        return UNCHANGED if self.unchanged else BADGES[self.verdict]
