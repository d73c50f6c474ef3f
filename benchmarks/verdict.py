"""How often is an overall verdict wrong at the margin, and how good is the forecast of the questions it needs?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr, ndtri

from benchmarks.markdown_table import markdown_table
from bitsure import metric_settings, verdict_settings
from bitsure.comparison.difference_tests import with_paired_interval
from bitsure.comparison.judgement import Judgement, judge_losses
from bitsure.comparison.losses import Loss, mean_losses, task_losses
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.choice_metrics import choice_metrics
from bitsure.metrics.estimation import estimate
from bitsure.metrics.metric_names import CALIBRATION, JUDGED, SQUARED_CALIBRATION
from bitsure.metrics.question_pairs import AnswerPairs
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.significance import POWER
from bitsure.results.measurement import Difference
from bitsure.results.verdict import INFERIOR, NON_INFERIOR

LEVEL = 0.95
SETTINGS = metric_settings(resamples=1000, confidence_level=LEVEL)
MARGINS = verdict_settings()
TRUTH = 1_000_000  # questions that the true losses are taken over
OTHER_DRAWS = 10**6  # seeds of evaluations that no forecast was made from
SPREAD = 2.0  # the power is found for so many times as many, or as few, questions as are predicted
FORECAST_HEAD = (
    *("model", "calibration margin", "questions asked", "needed", "predicted, median", "5% to 95%"),
    *("median interval", "forecast holds", "power with the number predicted"),
)


@dataclass(frozen=True)
class MadeUpModel:
    """Two-choice questions, answered in full precision and quantized.

    Attributes:
        name: What the table calls it.
        overconfidence: By how much the log-odds of full precision exceed the true ones, as a factor.
        noise: The standard deviation of what quantization adds to the log-odds.
        shift: How much it takes from the right answer's log-odds. None for nothing lost: full precision has such noise, too.
        tasks: The number of tasks, of `questions` each.
        questions: Questions of a task.
        factor: What quantization multiplies the log-odds by.
    """

    name: str
    overconfidence: float
    noise: float
    shift: float | None
    tasks: int
    questions: int
    factor: float = 1.0

    def answers(self, seed: int, n: int) -> tuple[QuestionSet, QuestionSet]:
        """Return n questions as both models answer them; the first choice is right with its true probability."""
        rng = np.random.default_rng(seed)
        odds = rng.normal(0, 2, n)
        right = rng.random(n) < 1 / (1 + np.exp(-odds))
        full = quantized = self.overconfidence * odds
        if self.shift is None:
            full = full + rng.normal(0, self.noise, n)
        quantized = self.factor * quantized + rng.normal(0, self.noise, n) - (self.shift or 0.0) * np.where(right, 1, -1)
        return _questions(full, right), _questions(quantized, right)

    def judged(self, seed: int, cases: Sequence[Mapping[str, float]], growth: float = 1.0) -> list[Judgement]:
        """Return the verdict on one random evaluation for the margins of each case."""
        n = round(self.questions * growth)
        mean = mean_losses([made_up_losses(*self.answers(self.tasks * seed + k, n)) for k in range(self.tasks)])
        losses = [{name: replace(loss, margin=margins[name]) for name, loss in mean.items()} for margins in cases]
        return [judge_losses(at_margins, LEVEL, n * self.tasks) for at_margins in losses]

    def true_losses(self) -> dict[str, float]:
        """Return the true loss of each metric, in its unit."""
        losses = made_up_losses(*self.answers(1, TRUTH))
        return {name: loss.in_unit(loss.value) for name, loss in losses.items()}


def _questions(odds: FloatArray, right: FloatArray) -> QuestionSet:
    scores = np.stack([-np.log1p(np.exp(-odds)), -np.log1p(np.exp(odds))], 1)
    return QuestionSet(scores.ravel(), np.stack([right, ~right], 1).ravel(), np.arange(len(odds) + 1) * 2)


def made_up_losses(full: QuestionSet, quantized: QuestionSet) -> dict[str, Loss]:
    """Return the losses of one task as a verdict takes them, but for standard errors by influence instead of resampling.

    Of means, both agree; resampling takes many times as long.
    """
    metrics = {name: statistic for name, statistic in choice_metrics(full, SETTINGS).items() if name in JUDGED}
    values = {
        name: Difference(
            value=difference.value,
            ci_low=difference.interval(LEVEL)[0],
            ci_high=difference.interval(LEVEL)[1],
            n=len(full),
            quantized=difference.sides[0],
            baseline=difference.sides[1],
            variance_error=difference.variance_error,
            chance_share=difference.chance_share,
        )
        for name, difference in estimate(metrics, quantized, None, None, minus=full).items()
    }
    values["accuracy"] = with_paired_interval(values["accuracy"], AnswerPairs(full, quantized), len(full), LEVEL)
    error = {SQUARED_CALIBRATION: metrics[SQUARED_CALIBRATION]}
    before, after = (estimate(error, side, None, None)[SQUARED_CALIBRATION].interval(LEVEL) for side in (full, quantized))
    values[SQUARED_CALIBRATION] = values[SQUARED_CALIBRATION].model_copy(update={"baseline_ci": before, "quantized_ci": after})
    return task_losses(values, MARGINS, LEVEL)


MODELS = (
    MadeUpModel("calibrated, one task", 1.0, 0.3, 0.02, 1, 2000),
    MadeUpModel("calibrated, six tasks", 1.0, 0.3, 0.02, 6, 1000),
    MadeUpModel("overconfident, one task", 1.6, 0.5, 0.03, 1, 2000),
    MadeUpModel("overconfident, six tasks", 1.6, 0.5, 0.03, 6, 1000),
    MadeUpModel("calibrated, log-odds × 1.16", 1.0, 0.05, 0.02, 1, 1000, 1.16),
    MadeUpModel("calibrated, log-odds × 1.25", 1.0, 0.02, 0.02, 1, 1000, 1.25),
)
FORECASTS = (  # with the margin of calibration: at .05 accuracy needs the most questions, at .01 calibration does
    (MadeUpModel("overconfident, one task", 1.6, 0.3, None, 1, 1000), 0.05),
    (MadeUpModel("overconfident, one task", 1.6, 0.3, None, 1, 1000), 0.01),
    (MadeUpModel("calibrated, four tasks", 1.0, 0.3, None, 4, 1000), 0.01),
    (MadeUpModel("overconfident, one task, at best", 1.6, 0.3, 0.01, 1, 1000), 0.05),
    (MadeUpModel("overconfident, six tasks, at best", 1.6, 0.3, 0.01, 6, 200), 0.05),
)


def wrong_rows(model: MadeUpModel, draws: int) -> list[tuple[str, ...]]:
    """Return how often each verdict falls where one loss, or all three, lie at their margins in truth."""
    truth = model.true_losses()
    wide = {name: 3 * abs(loss) + 0.05 for name, loss in truth.items()}
    cases = {f"{name.replace('_', ' ')} {loss:.4f}": wide | {name: loss} for name, loss in truth.items()}
    cases |= {"all three": truth}
    judged = [model.judged(seed, list(cases.values())) for seed in range(draws)]
    rows = []
    for case, judgements in zip(cases, zip(*judged, strict=True), strict=True):
        verdicts = [judgement.verdict for judgement in judgements]
        shares = (f"{verdicts.count(verdict) / draws:.3f}" for verdict in (NON_INFERIOR, INFERIOR))
        rows.append((model.name, case, *shares))
    return rows


def forecast_row(model: MadeUpModel, margin: float, draws: int) -> tuple[str, ...]:
    """Return how well line two of the verdict forecasts the questions that a model needs.

    A forecast `if nothing is lost` holds where the number that gives 80% power lies in its interval, one `at best` where that
    number is not below its interval.
    """
    margins, total = {"accuracy": 0.01, "nll": 0.02, CALIBRATION: margin}, model.tasks * model.questions
    predicted = predictions(model, margins, draws)
    numbers = predicted[:, 1]
    middle = float(np.median(numbers))
    level, slope = power_curve(model, margins, middle, draws)
    needed = ((float(ndtri(POWER)) - level) / slope) ** 2
    low, median, high = (f"{value:,.0f}" for value in np.quantile(numbers, [0.05, 0.5, 0.95]))
    holds = (predicted[:, 0] <= needed) & ((needed <= predicted[:, 2]) | (model.shift is not None))
    power = ndtr(level + slope * np.sqrt(numbers)).mean()
    ends = (f"{value:,.0f}" for value in np.median(predicted[:, [0, 2]], 0))
    return (
        *(model.name, f"{margin:g}", f"{total:,}", f"{needed:,.0f}", median, f"[{low}, {high}]"),
        *(" to ".join(ends), f"{holds.mean():.2f}", f"{power:.2f}"),
    )


def predictions(model: MadeUpModel, margins: Mapping[str, float], draws: int) -> FloatArray:
    """Return the questions predicted by the m evaluations with a forecast of the model's kind, those asked included.

    Returns:
        The lower end, the number and the upper end, shape (m, 3).
    """
    judged = [model.judged(seed, [margins])[0] for seed in range(draws)]
    lost = [any((of.ci_low or 0) > 0 for of in judgement.margins.values()) for judgement in judged]
    needed = [j.needed for j, surely in zip(judged, lost, strict=True) if j.needed and surely == (model.shift is not None)]
    ends = [(need.low, need.if_lossless, need.high or math.inf) for need in needed if need.if_lossless and need.low is not None]
    return model.tasks * model.questions + np.array(ends, float)


def power_curve(model: MadeUpModel, margins: Mapping[str, float], middle: float, draws: int) -> tuple[float, float]:
    """Return level and slope of the power to be non-inferior, Φ(level + slope √questions), from evaluations of many sizes."""
    sizes = middle * np.geomspace(1 / SPREAD, SPREAD, draws)
    growths = sizes / (model.tasks * model.questions)
    verdicts = [model.judged(OTHER_DRAWS + i, [margins], growth)[0].verdict for i, growth in enumerate(growths)]
    sides = np.where(np.array(verdicts) == NON_INFERIOR, 1.0, -1.0)
    roots = np.sqrt(sizes / middle)
    fit = minimize(lambda line: -log_ndtr(sides * (line[0] + line[1] * roots)).sum(), (-2.0, 2.8))
    return float(fit.x[0]), float(fit.x[1] / math.sqrt(middle))


def main() -> None:
    """Simulate and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400, help="evaluations of each row; a third as many of a forecast")
    draws = parser.parse_args().draws
    rows = [row for model in MODELS for row in wrong_rows(model, draws)]
    columns = ("model", "at the margin", "called non-inferior", "called inferior")
    print(*markdown_table(columns, rows), "", sep="\n", flush=True)
    forecasts = [forecast_row(model, margin, draws // 3) for model, margin in FORECASTS]
    print(*markdown_table(FORECAST_HEAD, forecasts), "", sep="\n")


if __name__ == "__main__":
    main()
