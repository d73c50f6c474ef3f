"""What would settle a verdict, in words: how many more questions, or another margin."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bitsure.comparison.judgement import Judgement
from bitsure.comparison.losses import TEXT_NLL
from bitsure.comparison.verdict_labels import SHORT_LABELS, UNITS, counted
from bitsure.results.run_files import QuestionCount
from bitsure.results.verdict import NOT_JUDGED, UNDECIDED, MarginVerdict, QuestionsNeeded

MANY = 1e7  # questions; more are never asked
WIDE = 10  # a forecast whose ends lie further apart tells only the lower one


@dataclass(frozen=True)
class QuestionsLeft:
    """How many questions tasks have that were not asked."""

    total: int
    """Those of all tasks."""
    in_proportion: int
    """Those that can be asked in the tasks' proportions, as a forecast counts them: until the first task has no more."""


def questions_left(tasks: Collection[str], questions: Mapping[str, QuestionCount]) -> QuestionsLeft | None:
    """Return how many questions tasks have that were not asked.

    Args:
        tasks: The tasks.
        questions: Task → how many questions it has and was asked.

    Returns:
        The numbers; None where they are not known of one of the tasks.
    """
    if not all(task in questions for task in tasks):
        return None
    left = {task: questions[task].available - questions[task].asked for task in tasks}
    times = min((left[task] / max(1, questions[task].asked) for task in tasks), default=0)
    return QuestionsLeft(sum(left.values()), math.floor(times * sum(questions[task].asked for task in tasks)))


def what_settles(judgement: Judgement, compared: Collection[str], left: QuestionsLeft | None = None) -> str:
    """Return how many questions would settle a verdict, and the margin that those asked can settle; empty if nothing would.

    Args:
        judgement: The verdict over the tasks together.
        compared: The tasks that have numbers with margins.
        left: How many questions the tasks have that were not asked; None where that is not known.
    """
    if not compared:
        return ""
    if judgement.verdict == NOT_JUDGED:
        return "Another task or text, more few-shot examples or more questions may show it above guessing."
    if judgement.verdict != UNDECIDED or judgement.limiting is None:
        return ""
    name, limiting, units = judgement.limiting, judgement.margins[judgement.limiting], counted(judgement.margins)
    assert judgement.needed and limiting.ci_high and limiting.decidable_margin, "an undecided metric has an interval"
    unit = f"{UNITS.get(name, '')} {'per token' if name == TEXT_NLL else f'for {SHORT_LABELS.get(name, name)}'}"
    if judgement.needed.if_lossless == 0:
        enough = f"These {limiting.n:,} {units} would have settled a smaller loss (80% power)"
        return f"{enough}: take more bits, or accept a margin above {_rounded_up(limiting.ci_high)}{unit}."
    more, these = f"{question_range(judgement.needed)} more {units}", f"these {limiting.n:,} settle a margin of"
    would = (
        f"At best, {more} would let you ship it"
        if _is_lost(judgement.margins)
        else f"If nothing is lost, {more} would settle it"
    )
    power = f"80% power{'; how many is uncertain' if _is_wide(judgement.needed) else ''}"
    return f"{would} ({power}){_too_few(judgement.needed, left)}; {these} {_rounded_up(limiting.decidable_margin)}{unit}."


def settles_task(margins: Mapping[str, MarginVerdict], needed: QuestionsNeeded) -> str:
    """Return how many more questions would settle a task, in few words.

    Args:
        margins: Metric → its verdict on the task.
        needed: The forecast.
    """
    if needed.if_lossless == 0:
        return "enough for a smaller loss"
    more = f"{question_range(needed)} more"
    return f"at best {more}" if _is_lost(margins) else f"{more} if nothing is lost"


def question_range(needed: QuestionsNeeded) -> str:
    """Return a forecast's interval: `1,600 to 4,700`, or `about 2,900` where neither end is known or of use.

    An end that is of no use is left out: `over 1,600` if the upper one is not known, above MANY or more than WIDE times the
    lower one, and `up to 4,700` if the lower one is 0.
    """
    low, high = question_count(needed.low), question_count(needed.high)
    if needed.low is None or (needed.low < 1 and _is_wide(needed)):
        return f"about {question_count(needed.if_lossless)}"
    if low == high:
        return low
    if low == "0":
        return f"up to {high}"
    return f"over {low}" if _is_wide(needed) else f"{low} to {high}"


def question_count(questions: float | None) -> str:
    """Return a number of questions with two significant digits, which is more than it deserves; None is more than any."""
    if questions is None or questions > MANY:
        return f"> {MANY:,.0f}"
    digits = max(0, len(str(math.ceil(questions))) - 2)
    return f"{round(math.ceil(questions), -digits):,}"


def _is_lost(margins: Mapping[str, MarginVerdict]) -> bool:
    """Return whether a metric surely lost something."""
    return any(of.ci_low is not None and of.ci_low > 0 for of in margins.values())


def _is_wide(needed: QuestionsNeeded) -> bool:
    """Return whether a forecast's upper end says nothing that a lower end above 0 does not."""
    low, high = needed.low, needed.high
    return low is not None and (high is None or high > MANY or (low >= 1 and high > WIDE * low))


def _too_few(needed: QuestionsNeeded, left: QuestionsLeft | None) -> str:
    """Return the clause that even the least that may be needed is more than what is left to ask; empty if it is not."""
    least = needed.if_lossless if needed.low is None else needed.low
    if left is None or (least is not None and least <= left.in_proportion):
        return ""
    if least is None or least > left.total:
        return f", but the tasks have {f'only {left.total:,}' if left.total else 'no'} more"
    return ", but some tasks have too few more for their share"


def _rounded_up(value: float) -> str:
    """Return a number above 0 with two significant digits, rounded up."""
    digits = 1 - math.floor(math.log10(value))
    return f"{math.ceil(round(value * 10**digits, 6)) / 10**digits:g}"
