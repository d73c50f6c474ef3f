"""May the quantized model be shipped? Decide per task: non-inferior, inferior, or undecided."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from bitsure.comparison.differences import was_compared
from bitsure.comparison.noise_control import SIZE_FACTOR, place_in_range, size_mismatch
from bitsure.config.schema import MetricSettings, VerdictSettings
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.metric_names import (
    BASELINE_ABOVE_GUESSING,
    ECE,
    MACRO,
    NOISE_CONTROL,
    ONLY_BASELINE,
    ONLY_QUANTIZED,
    PRIMARY,
)
from bitsure.results.measurement import Comparison, Difference
from bitsure.results.verdict import Decision, MarginVerdict, NoiseVerdict, TaskVerdict, Verdict

NON_INFERIOR: Decision = "non-inferior"
INFERIOR: Decision = "inferior"
UNDECIDED: Decision = "undecided"
FULL_PRECISION_RUN = "the full-precision run"  # what sentences call the baseline
ROUNDING = 1e-9  # of 1 / α
NOISE_LABELS = {PRIMARY: "the right answer's probability", "nll": "the NLL of a token"}
FARE_WORSE = "fare worse than sure ones by more than such noise explains"  # they lose more, or gain less
LABELS = {"accuracy": "the loss of accuracy", "nll": "the rise of the NLL", ECE: "the rise of the calibration error"}


def judge(
    comparison: Comparison,
    margins: VerdictSettings,
    metric: MetricSettings,
    noise_scale: float = 1.0,
    baseline: str = FULL_PRECISION_RUN,
) -> Verdict:
    """Return the verdict on a comparison.

    A loss is how much worse the quantized model is, in the metric's own unit. A metric is non-inferior where its interval's
    upper end is below the margin, inferior where the lower end is above it, undecided where there are fewer than `FEWEST`
    questions or clusters. The calibration error is biased: it can leave a task undecided but not make it inferior. A task
    is inferior if any metric is, non-inferior if all are, else undecided; a task of which no question was compared is
    undecided. Tasks without choices have no calibration error, and whole texts no accuracy: their verdict rests on the
    metrics that exist.

    Args:
        comparison: What `compare` returned.
        margins: The largest loss of each metric that is small enough to ship.
        metric: The confidence level. The noise control's test is exploratory and goes by 1 − this level;
            `metric.alpha` belongs to the primary tests.
        noise_scale: The output error of the noise control ÷ the quantizer's.
        baseline: What sentences call the first of the two runs.
    """
    level = metric.confidence_level
    by_metric = {"accuracy": margins.accuracy_margin, "nll": margins.nll_margin, ECE: margins.calibration_error_margin}
    tasks = {
        task: _judge_task(task, values, by_metric, level, baseline) for task, values in comparison.items() if task != MACRO
    }
    around = {
        task: against_noise(task, values, round(1 - level, 12), noise_scale)
        for task, values in comparison.items()
        if f"{NOISE_CONTROL}nll" in values
    }
    return Verdict(
        verdict=_overall([task.verdict for task in tasks.values()]),
        strict=margins.strict,
        level=level,
        noise_control=around or None,
        tasks=tasks,
    )


def against_noise(task: str, values: Mapping[str, Difference], alpha: float, scale: float = 1.0) -> NoiseVerdict:
    """Return where the quantized model lies within the range of noise of the same output error.

    Args:
        task: The task's name.
        values: The task's part of a comparison with a noise control.
        alpha: The significance level of the slope's test, in (0, 1).
        scale: The noise's output error ÷ the quantizer's.
    """
    names = [name for name in values if f"{NOISE_CONTROL}{name}" in values]
    places = {name: place_in_range(name, values[name].value, values[f"{NOISE_CONTROL}{name}"]) for name in names}
    name = PRIMARY if PRIMARY in names else "nll"
    change, noise = values[name], values[f"{NOISE_CONTROL}{name}"]
    size = "the same" if scale == 1 else f"{scale:g} times the"
    sentence = (
        f"{task}: noise of {size} output error ({noise.n} seeds) changes {NOISE_LABELS[name]} by "
        f"{noise.ci_low:+.4f} to {noise.ci_high:+.4f}; quantization, by {change.value:+.4f}, is "
        f"{'within that' if places[name] == 'within' else f'{places[name]} than that'}."
    )
    if "kl_divergence" in names:
        noise_kl = values[f"{NOISE_CONTROL}kl_divergence"].value
        sentence += f" Mean KL {values['kl_divergence'].value:.4f}, of the noise {noise_kl:.4f}."
    if "harm_slope" in values and (mismatch := size_mismatch(values)):
        sentence += (
            f" Whether unsure questions {FARE_WORSE} is not tested: {mismatch}, and noise is a "
            f"control only within a factor of {SIZE_FACTOR:g}.{_scale_that_fits(values, scale)}"
        )
    elif "harm_slope" in values and (p_value := values["harm_slope"].p_value) is not None:
        sentence += f" {_slope_sentence(p_value, noise.n, alpha)}"
    return NoiseVerdict(places=places, sentence=sentence)


def _scale_that_fits(values: Mapping[str, Difference], scale: float) -> str:
    """Return which `control.scale` gives the noise the quantizer's mean KL, which grows with the square of small noise."""
    noise, quantizer = values[f"{NOISE_CONTROL}kl_divergence"].value, values["kl_divergence"].value
    return f" Try control.scale={scale * math.sqrt(quantizer / noise):.2g}." if noise and quantizer else ""


def _slope_sentence(p_value: float, seeds: int, alpha: float) -> str:
    """Return what the slope's test shows; p ≥ 1 / (seeds + 1), so that few seeds cannot show anything at a small α."""
    numbers = f"p = {p_value:.2g}, unadjusted"
    if p_value <= alpha:
        return f"Unsure questions {FARE_WORSE} ({numbers})."
    if alpha < 1 / (seeds + 1):
        needed = math.ceil(1 / alpha - ROUNDING) - 1
        return (
            f"Whether unsure questions {FARE_WORSE}, {seeds} seeds cannot show at "
            f"α = {alpha:g} ({numbers}): that takes at least {needed}."
        )
    return f"It is not shown that unsure questions {FARE_WORSE} ({numbers})."


def verdict_sentences(verdict: Verdict) -> list[str]:
    """Return the verdict in words, task by task."""
    tasks = [task.sentence for task in verdict.tasks.values()]
    return tasks + [noise.sentence for noise in (verdict.noise_control or {}).values()]


def _judge_task(
    task: str, values: Mapping[str, Difference], margins: Mapping[str, float], level: float, baseline: str
) -> TaskVerdict:
    if not was_compared(values):
        return _not_compared(task, values, baseline)
    judged = {
        name: _judge_metric(values[name], margin, worse=-1 if name == "accuracy" else 1, decisive=name != ECE)
        for name, margin in margins.items()
        if name in values
    }
    overall, warning = _overall([metric.verdict for metric in judged.values()]), _warning(values, baseline)
    return TaskVerdict(
        verdict=overall,
        sentence=_sentence(task, overall, judged, level) + (f" {warning}" if warning else ""),
        warning=warning,
        margins=judged,
        smallest_detectable=values.get(PRIMARY, values["nll"]).smallest_detectable,
    )


def _judge_metric(change: Difference, margin: float, worse: int, decisive: bool) -> MarginVerdict:
    """Return the verdict on one metric.

    Args:
        change: Quantized − full precision.
        margin: The largest acceptable loss, in the metric's unit.
        worse: +1 where a larger value is worse, −1 where a smaller one is.
        decisive: Whether the metric can make a task inferior.
    """
    assert change.value is not None  # these metrics always exist
    loss = worse * change.value + 0.0  # no −0
    units = change.n if change.n_clusters is None else change.n_clusters
    low = high = None
    decision = UNDECIDED
    if change.ci_low is not None and change.ci_high is not None:
        low, high = sorted((worse * change.ci_low, worse * change.ci_high))
        decision = NON_INFERIOR if high < margin else INFERIOR if low > margin else UNDECIDED
    if units < FEWEST or (decision == INFERIOR and not decisive):
        decision = UNDECIDED
    clusters = {} if change.n_clusters is None else {"n_clusters": change.n_clusters}
    return MarginVerdict(verdict=decision, loss=loss, ci_low=low, ci_high=high, margin=margin, n=change.n, **clusters)


def _not_compared(task: str, values: Mapping[str, Difference], baseline: str) -> TaskVerdict:
    full, quantized = (values[name].value for name in (ONLY_BASELINE, ONLY_QUANTIZED))
    sentence = f"{task}: undecided. None of its questions is in both runs ({full:,} in {baseline}, {quantized:,} in the other)."
    return TaskVerdict(verdict=UNDECIDED, sentence=sentence, warning=None, margins={}, smallest_detectable=None)


def _warning(values: Mapping[str, Difference], baseline: str) -> str | None:
    """Return a warning if the baseline is not above guessing: such a model has little to lose."""
    above, accuracy = values.get(BASELINE_ABOVE_GUESSING), values.get("accuracy")
    if above is None or above.value is None or above.ci_low is None or accuracy is None or accuracy.baseline is None:
        return None
    if above.ci_low > 0:
        return None
    numbers = f"accuracy {accuracy.baseline:.3f}, guessing {accuracy.baseline - above.value:.3f}"
    numbers += f", difference [{above.ci_low:+.3f}, {above.ci_high:+.3f}]"
    return f"{baseline.capitalize()} itself is not clearly above guessing here ({numbers}): a comparison says little."


def _overall(verdicts: Collection[Decision]) -> Decision:
    if INFERIOR in verdicts:
        return INFERIOR
    return NON_INFERIOR if set(verdicts) == {NON_INFERIOR} else UNDECIDED


def _sentence(task: str, overall: Decision, judged: Mapping[str, MarginVerdict], level: float) -> str:
    if overall == NON_INFERIOR:
        worst = max(judged, key=lambda name: (judged[name].ci_high or 0.0) / judged[name].margin)
        return (
            f"{task}: non-inferior. Every loss keeps within its margin; the nearest is {LABELS[worst]}, "
            f"{_loss(judged[worst])} with a margin of {judged[worst].margin:g}."
        )
    losses = "; ".join(
        f"{LABELS[name]} {_loss(metric)}, margin {metric.margin:g}"
        for name, metric in judged.items()
        if metric.verdict == overall
    )
    if overall == INFERIOR:
        return f"{task}: inferior. Beyond its margin: {losses}."
    first = next(iter(judged.values()))
    if (first.n_clusters or first.n) < FEWEST:
        count = f"{first.n:,} questions" + (f" in {first.n_clusters:,} clusters" if first.n_clusters else "")
        return f"{task}: undecided. {count} are too few: a verdict needs at least {FEWEST}."
    return f"{task}: undecided. Too uncertain at {level:.0%} over {first.n:,} questions: {losses}."


def _loss(metric: MarginVerdict) -> str:
    if metric.ci_low is None or metric.ci_high is None:
        return f"{metric.loss:+.4f}"
    return f"{metric.loss:+.4f} [{metric.ci_low:+.4f}, {metric.ci_high:+.4f}]"
