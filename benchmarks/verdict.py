"""How often is an overall verdict wrong at the margin, and how good is the forecast of the questions it needs?"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.choosing import table
from bitsure.comparison.judgement import Judgement, judge_losses
from bitsure.comparison.losses import Loss, mean_losses
from bitsure.metrics.arrays import FloatArray
from bitsure.metrics.bins import Bins
from bitsure.metrics.calibration import debiased_squared_error
from bitsure.metrics.estimation import variance_error
from bitsure.metrics.metric_names import CALIBRATION
from bitsure.metrics.questions import QuestionSet
from bitsure.results.verdict import INFERIOR, NON_INFERIOR

LEVEL = 0.95
ERROR = debiased_squared_error(Bins.uniform(15))
TRUTH = 1_000_000  # questions that the true losses are taken over
OTHER_DRAWS = 10**6  # seeds of evaluations that no forecast was made from


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
    """

    name: str
    overconfidence: float
    noise: float
    shift: float | None
    tasks: int
    questions: int

    def answers(self, seed: int, n: int) -> tuple[QuestionSet, QuestionSet]:
        """Return n questions as both models answer them; the first choice is right with its true probability."""
        rng = np.random.default_rng(seed)
        odds = rng.normal(0, 2, n)
        right = rng.random(n) < 1 / (1 + np.exp(-odds))
        full = quantized = self.overconfidence * odds
        if self.shift is None:
            full = full + rng.normal(0, self.noise, n)
        quantized = quantized + rng.normal(0, self.noise, n) - (self.shift or 0.0) * np.where(right, 1, -1)
        return _questions(full, right), _questions(quantized, right)

    def judged(self, seed: int, margins: dict[str, float], growth: float = 1.0) -> Judgement:
        """Return the verdict on one random evaluation."""
        n = round(self.questions * growth)
        of_tasks = [_losses(*self.answers(self.tasks * seed + k, n), margins) for k in range(self.tasks)]
        return judge_losses(mean_losses(of_tasks), LEVEL, n * self.tasks)

    def true_losses(self) -> dict[str, float]:
        """Return the true loss of each metric, in its unit."""
        losses = _losses(*self.answers(1, TRUTH), dict.fromkeys(("accuracy", "nll", CALIBRATION), 1e-9))
        return {name: loss.in_unit(loss.value) for name, loss in losses.items()}


def _questions(odds: FloatArray, right: FloatArray) -> QuestionSet:
    scores = np.stack([-np.log1p(np.exp(-odds)), -np.log1p(np.exp(odds))], 1)
    return QuestionSet(scores.ravel(), np.stack([right, ~right], 1).ravel(), np.arange(len(odds) + 1) * 2)


def _losses(full: QuestionSet, quantized: QuestionSet, margins: dict[str, float]) -> dict[str, Loss]:
    losses = {}
    for name, change in (("accuracy", full.correct - quantized.correct), ("nll", quantized.nll - full.nll)):
        spread = variance_error(change - change.mean(), None)
        error = float(change.std() / np.sqrt(len(change)))
        losses[name] = Loss(float(change.mean()), error, error, margins[name], len(full), len(full), variance_error=spread)
    (after, after_influence), (before, before_influence) = (ERROR.value_and_influence(side) for side in (quantized, full))
    error, chance = ERROR.sampling_error(quantized, None, full)
    losses[CALIBRATION] = replace(
        losses["nll"],
        value=after - before,
        below=error,
        above=error,
        margin=margins[CALIBRATION],
        variance_error=variance_error(after_influence - before_influence, None),
        chance_share=chance,
        squares=(before, after),
    )
    return losses


MODELS = (
    MadeUpModel("calibrated, one task", 1.0, 0.3, 0.02, 1, 2000),
    MadeUpModel("calibrated, six tasks", 1.0, 0.3, 0.02, 6, 1000),
    MadeUpModel("overconfident, one task", 1.6, 0.5, 0.03, 1, 2000),
    MadeUpModel("overconfident, six tasks", 1.6, 0.5, 0.03, 6, 1000),
)
LOSSLESS = (  # with the margin of calibration: at .05 accuracy needs the most questions, at .01 calibration does
    (MadeUpModel("overconfident, one task", 1.6, 0.3, None, 1, 1000), 0.05),
    (MadeUpModel("overconfident, six tasks", 1.6, 0.3, None, 6, 200), 0.05),
    (MadeUpModel("overconfident, one task", 1.6, 0.3, None, 1, 1000), 0.01),
    (MadeUpModel("overconfident, six tasks", 1.6, 0.3, None, 6, 400), 0.01),
)


def wrong_rows(model: MadeUpModel, draws: int) -> list[tuple[str, ...]]:
    """Return how often each verdict falls where one loss, or all three, lie at their margins in truth."""
    truth = model.true_losses()
    wide = {name: 3 * abs(loss) + 0.05 for name, loss in truth.items()}
    cases = {f"{name.replace('_', ' ')} {loss:.4f}": wide | {name: loss} for name, loss in truth.items()}
    rows = []
    for case, margins in (cases | {"all three": truth}).items():
        verdicts = [model.judged(seed, margins).verdict for seed in range(draws)]
        shares = (f"{verdicts.count(verdict) / draws:.3f}" for verdict in (NON_INFERIOR, INFERIOR))
        rows.append((model.name, case, *shares))
    return rows


def forecast_row(model: MadeUpModel, margin: float, draws: int) -> tuple[str, ...]:
    """Return the questions predicted for a lossless model, and how often as many as the median show it to be non-inferior."""
    margins, total = {"accuracy": 0.01, "nll": 0.02, CALIBRATION: margin}, model.tasks * model.questions
    first = [model.judged(seed, margins).needed for seed in range(draws)]
    predicted = [total + needed.if_lossless for needed in first if needed]
    growth = float(np.median(predicted)) / total
    power = np.mean([model.judged(OTHER_DRAWS + seed, margins, growth).verdict == NON_INFERIOR for seed in range(draws)])
    low, middle, high = (f"{value:,.0f}" for value in np.quantile(predicted, [0.05, 0.5, 0.95]))
    return model.name, f"{margin:g}", f"{total:,}", middle, f"[{low}, {high}]", f"{power:.2f}"


def main() -> None:
    """Simulate and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="evaluations of each row")
    draws = parser.parse_args().draws
    rows = [row for model in MODELS for row in wrong_rows(model, draws)]
    print(table(("model", "at the margin", "called non-inferior", "called inferior"), rows), flush=True)
    head = ("model", "calibration margin", "questions asked", "predicted, median", "5% to 95%", "power with the median")
    print(table(head, [forecast_row(model, margin, draws // 3) for model, margin in LOSSLESS]))


if __name__ == "__main__":
    main()
