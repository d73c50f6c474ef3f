"""A verdict in words, the same on the terminal, on pages and in W&B.

A change is quantized − full precision, and so is its interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bitsure.base.decimals import interval_ends
from bitsure.comparison.judgement import Judgement
from bitsure.comparison.losses import TEXT_NLL
from bitsure.config.derived_tasks import original_task
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.metric_names import (
    BASELINE_ABOVE_GUESSING,
    BASELINE_NLL_BELOW_GUESSING,
    BITS_PER_BYTE,
    CALIBRATION,
    ONLY_BASELINE,
    ONLY_QUANTIZED,
)
from bitsure.results.measurement import Difference
from bitsure.results.verdict import (
    INFERIOR,
    NON_INFERIOR,
    NOT_JUDGED,
    UNDECIDED,
    Decision,
    MarginVerdict,
    QuestionsNeeded,
    Verdict,
)

FULL_PRECISION_RUN = "the full-precision run"  # what sentences call the baseline
LABELS = {
    "accuracy": "accuracy",
    "nll": "negative log-likelihood",
    TEXT_NLL: "negative log-likelihood per token",
    CALIBRATION: "debiased calibration error",
}
SHORT_LABELS = {"nll": "NLL", TEXT_NLL: "NLL per token", CALIBRATION: "calibration"}  # where a line has little room
BINNED_ERROR = (
    "The binned calibration error in the tables is biased upward, most near zero. The debiased one, by which the verdict goes, "
    "is not: their changes may differ in sign."
)
UNITS = {"nll": " nats", TEXT_NLL: " nats"}
SHOWN, ROUNDING = 5e-5, 1e-9  # the least change that four decimals show, and the largest that is an error of floats
MANY = 1e7  # questions; more are never asked
WIDE = 10  # a forecast whose ends lie further apart tells only the lower one
ANSWERS: dict[Decision, tuple[str, str, str]] = {  # verdict → may it be shipped, where the limiting metric is, and others
    NON_INFERIOR: ("You may ship it", "surely within", "and so"),
    INFERIOR: ("Do not ship it", "surely beyond", "and so"),
    UNDECIDED: ("Do not ship it yet", "not surely within", "nor"),
}
TOO_FEW = f"a verdict needs at least {FEWEST} questions, or clusters of them, in each task"


def answer(judgement: Judgement, compared: Collection[str], baseline: str) -> str:
    """Return in one short sentence whether the model may be shipped and what limits that, with one interval at most.

    Args:
        judgement: The verdict over the tasks together.
        compared: The tasks that have numbers with margins.
        baseline: What the first of the two runs is called.
    """
    if not compared:
        return "Not judged: nothing that has a margin was compared."
    if judgement.verdict == NOT_JUDGED:
        where = " or ".join(compared) if len(compared) == 1 else "any task that was compared"
        return f"Not judged: {baseline} is not clearly above guessing on {where}."
    ship, place, likewise = ANSWERS[judgement.verdict]
    if judgement.limiting is None:
        return f"{ship}: {TOO_FEW}."
    label, limiting = LABELS[judgement.limiting], judgement.margins[judgement.limiting]
    change, margin = _change(judgement.limiting, limiting), _margin(judgement.limiting, limiting)
    others = [name for name in _deciding(judgement.margins, judgement.verdict) if name != label]
    more = f", {likewise} {'are' if len(others) > 1 else 'is'} {_listed(others)}" if others else ""
    return f"{ship}: {label} is {place} its margin of {margin} ({change}){more}."


@dataclass(frozen=True)
class QuestionsLeft:
    """How many questions tasks have that were not asked."""

    total: int
    """Those of all tasks."""
    in_proportion: int
    """Those that can be asked in the tasks' proportions, as a forecast counts them: until the first task has no more."""


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
    name, limiting, units = judgement.limiting, judgement.margins[judgement.limiting], _units(judgement.margins)
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


def task_sentence(task: str, judgement: Judgement) -> str:
    """Return the verdict on one task in a line: the change that limits it, what else decides it, how many questions would."""
    sentence, limiting = f"{task}: {judgement.verdict}.", judgement.limiting
    if limiting is None:
        return f"{sentence} {TOO_FEW[0].upper()}{TOO_FEW[1:]}."
    change = f"{LABELS[limiting]} {_change(limiting, judgement.margins[limiting])}"
    names = [name for name, of in judgement.margins.items() if of.verdict == judgement.verdict and name != limiting]
    others = f", also {_listed([SHORT_LABELS.get(name, LABELS[name]) for name in names])}" if names else ""
    basis = f"{judgement.n:,} {_units(judgement.margins)}, {100 * judgement.level:.3g}% interval"
    settles = f"; {_settles_task(judgement.margins, judgement.needed)}" if judgement.needed else ""
    return f"{sentence} {change[0].upper()}{change[1:]}{others} ({basis}{settles})."


def verdict_details(verdict: Verdict) -> dict[str, list[str]]:
    """Return what stands below a verdict's answer: heading → lines on every change, every task, what a noise control shows."""
    details: dict[str, list[str]] = {}
    units = _units(verdict.margins)
    if verdict.margins:
        part, tasks = len(verdict.tasks) - len(verdict.excluded), len(verdict.tasks)
        counted = f"{part} of {tasks} tasks" if verdict.excluded else f"{tasks} tasks" if tasks > 1 else "one task"
        lines = [_detail(name, of_metric, verdict.n) for name, of_metric in verdict.margins.items()]
        if CALIBRATION in verdict.margins:
            lines.append(BINNED_ERROR)
        details[f"Mean change over {counted} ({verdict.n:,} {units}, {100 * verdict.level:.3g}% intervals):"] = lines
    if len(verdict.tasks) > 1 or not verdict.margins:
        undecided = any(task.questions_needed for task in verdict.tasks.values())
        heading = f"Each task by itself{', with the questions that would settle it (80% power)' if undecided else ''}:"
        details[heading] = [task.sentence for task in verdict.tasks.values()]
    if verdict.noise_control:
        details["Against the noise control:"] = [noise.sentence for noise in verdict.noise_control.values()]
    return details


def outcome(verdict: Verdict) -> str:
    """Return a verdict in few words with the metrics that decided it, such as `surely worse in accuracy`."""
    names = _listed(_deciding(verdict.margins, verdict.verdict))
    if verdict.verdict == INFERIOR and names:
        return f"surely worse in {names}"
    return f"{UNDECIDED}: {names}" if verdict.verdict == UNDECIDED and names else verdict.verdict


def exclusion(values: Mapping[str, Difference], baseline: str) -> str:
    """Return why a task takes no part in the overall verdict.

    Args:
        values: The task's part of a comparison.
        baseline: What the first run is called.
    """
    reason = f"{baseline.capitalize()} itself is not clearly above guessing here"
    below, nll = values.get(BASELINE_NLL_BELOW_GUESSING), values.get("nll")
    if below is not None and nll is not None and below.value is not None and nll.baseline is not None:
        return f"{reason} (NLL {nll.baseline:.3f} nats a token, guessing {nll.baseline + below.value:.3f})"
    if "answer_tokens" in values and "accuracy" not in values:
        return OPEN
    above, accuracy = values.get(BASELINE_ABOVE_GUESSING), values.get("accuracy")
    if above is None or accuracy is None:
        if BITS_PER_BYTE in values:
            return "The two models have other tokenizers: bits per byte alone are compared, and have no margin"
        first, second = (values[name].value for name in (ONLY_BASELINE, ONLY_QUANTIZED))
        return f"None of its questions is in both runs ({first:,} in {baseline}, {second:,} in the other)"
    if above.value is None or accuracy.baseline is None or above.ci_low is None:
        return reason
    numbers = f"accuracy {accuracy.baseline:.3f}, guessing {accuracy.baseline - above.value:.3f}"
    return f"{reason} ({numbers}, difference {interval_ends(above.ci_low, above.ci_high, '+.3f')})"


OPEN = "Its questions are open: no answer is right or wrong"
OWN_WORDS = "Full precision wrote it, so that every other model finds it less likely"


def repetition(task: str) -> str:
    """Return why the twin of another task takes no part in the overall verdict."""
    return f"It asks the questions of {original_task(task)} again, in other words"


def question_count(questions: float | None) -> str:
    """Return a number of questions with two significant digits, which is more than it deserves; None is more than any."""
    if questions is None or questions > MANY:
        return f"> {MANY:,.0f}"
    digits = max(0, len(str(math.ceil(questions))) - 2)
    return f"{round(math.ceil(questions), -digits):,}"


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


def signed_change(change: float, ends: tuple[float, float] | None) -> str:
    """Return a change with its interval, both signed, to four decimals or to one digit; one of 0 is `unchanged`.

    Args:
        change: The second value less the first.
        ends: The ends of its interval; None where it has none.
    """
    digits = "+.4f" if abs(change) >= SHOWN else "+.0e"
    amount = format(change, digits) if abs(change) > ROUNDING else "unchanged"
    return amount if ends is None else f"{amount} {interval_ends(*ends, '+.4f')}"


def _deciding(margins: Mapping[str, MarginVerdict], verdict: Decision) -> list[str]:
    """Return the labels of the metrics whose verdict is that of all together."""
    return [LABELS[name] for name, of_metric in margins.items() if of_metric.verdict == verdict]


def _change(name: str, of_metric: MarginVerdict) -> str:
    """Return the signed change behind a loss, with its interval; one of 0 is `unchanged`."""
    low, high, sign, ends = of_metric.ci_low, of_metric.ci_high, -1 if name == "accuracy" else 1, None
    if low is not None and high is not None:
        low, high = sorted((sign * low, sign * high))
        ends = low, high
    return f"{signed_change(sign * of_metric.loss, ends)}{UNITS.get(name, '')}"


def _margin(name: str, of_metric: MarginVerdict) -> str:
    return f"{of_metric.margin:g}{UNITS.get(name, '')}"


def _detail(name: str, of_metric: MarginVerdict, n: int) -> str:
    """Return a metric's change, margin and verdict, and over how much it is taken if not over all n questions."""
    tasks = of_metric.n_tasks or 1
    part = "" if of_metric.n == n else f" ({tasks} task{'s' * (tasks > 1)}, {of_metric.n:,} questions)"
    return f"{LABELS[name]} {_change(name, of_metric)}{part}, margin {_margin(name, of_metric)}: {of_metric.verdict}"


def _units(margins: Mapping[str, MarginVerdict]) -> str:
    """Return what is counted; whole texts, which have no accuracy, are no questions."""
    return "questions" if "accuracy" in margins else "documents or windows"


def _settles_task(margins: Mapping[str, MarginVerdict], needed: QuestionsNeeded) -> str:
    """Return how many more questions would settle a task, in few words."""
    if needed.if_lossless == 0:
        return "enough for a smaller loss"
    more = f"{question_range(needed)} more"
    return f"at best {more}" if _is_lost(margins) else f"{more} if nothing is lost"


def _is_lost(margins: Mapping[str, MarginVerdict]) -> bool:
    """Return whether a metric surely lost something."""
    return any(of.ci_low is not None and of.ci_low > 0 for of in margins.values())


def _rounded_up(value: float) -> str:
    """Return a number above 0 with two significant digits, rounded up."""
    digits = 1 - math.floor(math.log10(value))
    return f"{math.ceil(round(value * 10**digits, 6)) / 10**digits:g}"


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
