"""May the quantized model be shipped? Decide over the tasks together and for each: non-inferior, inferior, or undecided."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.comparison import verdict_words as words
from bitsure.comparison.differences import was_compared
from bitsure.comparison.equal_runs import equal_sentences, records_if_equal
from bitsure.comparison.judgement import Judgement, can_decide, holm_levels, judge_losses
from bitsure.comparison.losses import is_above_guessing, mean_losses, task_losses
from bitsure.comparison.noise_verdict import against_noise
from bitsure.comparison.settling import questions_left, what_settles
from bitsure.config.derived_tasks import is_repetition
from bitsure.config.metric import MetricSettings
from bitsure.config.schema import VerdictSettings
from bitsure.metrics.metric_names import MACRO, NOISE_CONTROL, PRIMARY
from bitsure.records.text_units import is_of_written
from bitsure.results.measurement import Comparison, Difference
from bitsure.results.run_files import QuestionCount
from bitsure.results.verdict import NOT_JUDGED, TaskVerdict, Verdict


def judge(
    comparison: Comparison,
    margins: VerdictSettings,
    metric: MetricSettings,
    noise_scale: float = 1.0,
    baseline: str = words.FULL_PRECISION_RUN,
    questions: Mapping[str, QuestionCount] | None = None,
) -> Verdict:
    """Return the verdict on a comparison, over the tasks together and for each.

    A loss is how much worse the quantized model is, in the metric's own unit. A metric is non-inferior where its interval's
    upper end is below the margin, inferior where the lower end is above it. A model is inferior if any metric is, non-inferior
    if all are, else undecided (an intersection–union test): at 95% it is called non-inferior with a loss at the margin in
    about 2.5% of the cases at most, and each metric calls it inferior as rarely.

    The overall verdict goes by the mean losses over tasks, which count alike. A task on which the baseline is not above
    guessing, or of which no question was compared, takes no part and is not judged; nor is a twin of another task, or a text
    that full precision wrote itself. A task without choices has no calibration error, and a whole text no accuracy: they count
    in the metrics that they have. The NLL of whole texts is of a token, and judged by itself; a text is above guessing where it
    is below ln of the vocabulary's size. Nothing is decided where a task has fewer than `FEWEST` questions or clusters. The
    verdicts on single tasks are adjusted for their number by Holm: a task's intervals are at the level of its step. Where all
    records are equal the sentences say so, and the verdict is about other questions.

    Args:
        comparison: What `compare` returned.
        margins: The largest loss of each metric that is small enough to ship.
        metric: The confidence level. The noise control's test is exploratory and goes by 1 − this level;
            `metric.alpha` belongs to the primary tests.
        noise_scale: The output error of the noise control ÷ the quantizer's.
        baseline: What sentences call the first of the two runs.
        questions: Task → how many questions it has and was asked; None where that is not known.

    Reference: Berger 1982 for the intersection–union test.
    """
    level = metric.confidence_level
    tasks = {task: values for task, values in comparison.items() if task != MACRO}
    losses = {task: task_losses(values, margins, level) for task, values in tasks.items() if was_compared(values)}
    excluded = {
        task: words.exclusion(values, baseline)
        for task, values in tasks.items()
        if task not in losses or not is_above_guessing(values)
    }
    aside = {task: words.repetition(task) for task in losses if is_repetition(task, losses)}
    aside |= {task: words.OWN_WORDS for task in losses if is_of_written(task)}
    excluded |= aside
    part = {task: of_task for task, of_task in losses.items() if task not in excluded}
    overall = judge_losses(mean_losses(list(part.values())), level, sum(of_task["nll"].n for of_task in part.values()))
    counted = {task: of_task for task, of_task in losses.items() if task not in aside}
    levels = holm_levels({task: of_task for task, of_task in counted.items() if can_decide(of_task)}, level)
    judged = {task: judge_losses(of_task, levels.get(task, level), of_task["nll"].n) for task, of_task in losses.items()}
    around = {
        task: against_noise(task, values, round(1 - level, 12), noise_scale)
        for task, values in tasks.items()
        if f"{NOISE_CONTROL}nll" in values
    }
    sentence = words.answer(overall, losses.keys(), baseline)
    settles = what_settles(overall, losses.keys(), questions_left(part, questions or {}))
    if equal := records_if_equal(tasks.values()):
        sentence, settles = equal_sentences(equal, overall.verdict, sentence, settles)
    return Verdict(
        verdict=overall.verdict,
        sentence=sentence,
        settles=settles,
        unchanged=equal is not None,
        margins=overall.margins,
        n=overall.n,
        excluded=excluded,
        questions_needed=overall.needed,
        decidable_margin=overall.margins[overall.limiting].decidable_margin if overall.needed and overall.limiting else None,
        strict=margins.strict,
        level=level,
        noise_control=around or None,
        tasks={task: _task_verdict(task, values, judged.get(task), excluded.get(task)) for task, values in tasks.items()},
    )


def _task_verdict(
    task: str, values: Mapping[str, Difference], judgement: Judgement | None, exclusion: str | None
) -> TaskVerdict:
    """Return the verdict on one task.

    Args:
        task: The task's name.
        values: Its part of the comparison.
        judgement: The verdict on its losses; None where no question was compared.
        exclusion: Why it takes no part in the overall verdict; None if it does.
    """
    verdict, sentence = NOT_JUDGED, f"{task}: {NOT_JUDGED}. {exclusion}."
    if judgement is None:
        return TaskVerdict(verdict=verdict, sentence=sentence, warning=exclusion, margins={}, smallest_detectable=None)
    if exclusion is None:
        verdict, sentence = judgement.verdict, words.task_sentence(task, judgement)
    return TaskVerdict(
        verdict=verdict,
        sentence=sentence,
        warning=exclusion,
        margins=judgement.margins,
        smallest_detectable=values.get(PRIMARY, values["nll"]).smallest_detectable,
        level=judgement.level,
        questions_needed=None if exclusion else judgement.needed,
    )
