"""A verdict in words, the same on the terminal, on pages and in W&B.

A change is quantized − full precision, and so is its interval.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bitsure.base.decimals import interval_ends
from bitsure.comparison.judgement import Judgement
from bitsure.comparison.settling import settles_task
from bitsure.comparison.verdict_labels import LABELS, ROOT_OF_MEAN, SHORT_LABELS, UNITS, counted
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
    UNCHANGED,
    UNDECIDED,
    Decision,
    MarginVerdict,
    Verdict,
)

FULL_PRECISION_RUN = "the full-precision run"  # what sentences call the baseline
BINNED_ERROR = (
    "The binned calibration error in the tables is biased upward, most near zero. The debiased one, by which the verdict goes, "
    "is not: their changes may differ in sign."
)
SHOWN, ROUNDING = 5e-5, 1e-9  # the least change that four decimals show, and the largest that is an error of floats
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


def task_sentence(task: str, judgement: Judgement) -> str:
    """Return the verdict on one task in a line: the change that limits it, what else decides it, how many questions would."""
    sentence, limiting = f"{task}: {judgement.verdict}.", judgement.limiting
    if limiting is None:
        return f"{sentence} {TOO_FEW[0].upper()}{TOO_FEW[1:]}."
    change = f"{LABELS[limiting]} {_change(limiting, judgement.margins[limiting])}"
    names = [name for name, of in judgement.margins.items() if of.verdict == judgement.verdict and name != limiting]
    others = f", also {_listed([SHORT_LABELS.get(name, LABELS[name]) for name in names])}" if names else ""
    basis = f"{judgement.n:,} {counted(judgement.margins)}, {100 * judgement.level:.3g}% interval"
    settles = f"; {settles_task(judgement.margins, judgement.needed)}" if judgement.needed else ""
    return f"{sentence} {change[0].upper()}{change[1:]}{others} ({basis}{settles})."


def verdict_details(verdict: Verdict) -> dict[str, list[str]]:
    """Return what stands below a verdict's answer: heading → lines on every change, every task, what a noise control shows."""
    details: dict[str, list[str]] = {}
    units = counted(verdict.margins)
    if verdict.margins:
        part, tasks = len(verdict.tasks) - len(verdict.excluded), len(verdict.tasks)
        over = f"{part} of {tasks} tasks" if verdict.excluded else f"{tasks} tasks" if tasks > 1 else "one task"
        lines = [_detail(name, of_metric, verdict.n) for name, of_metric in verdict.margins.items()]
        if CALIBRATION in verdict.margins:
            lines.append(BINNED_ERROR)
        details[f"Mean change over {over} ({verdict.n:,} {units}, {100 * verdict.level:.3g}% intervals):"] = lines
    if len(verdict.tasks) > 1 or not verdict.margins:
        undecided = any(task.questions_needed for task in verdict.tasks.values())
        heading = f"Each task by itself{', with the questions that would settle it (80% power)' if undecided else ''}:"
        details[heading] = [task.sentence for task in verdict.tasks.values()]
    if verdict.noise_control:
        details["Against the noise control:"] = [noise.sentence for noise in verdict.noise_control.values()]
    return details


def outcome(verdict: Verdict) -> str:
    """Return a verdict in few words with the metrics that decided it, such as `surely worse in accuracy`."""
    if verdict.unchanged:
        return UNCHANGED
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
        if "word_perplexity" in values:
            return "Its log does not count tokens, and the margin of a text is one of the NLL of a token"
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
    how = f" ({ROOT_OF_MEAN})" if name == CALIBRATION and tasks > 1 else ""
    return f"{LABELS[name]}{how} {_change(name, of_metric)}{part}, margin {_margin(name, of_metric)}: {of_metric.verdict}"


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
