"""How often a choice among quantizers is wrong, and how well the questions needed are predicted: `make bench-choosing`.

Sweeps are made up: full precision and each candidate answer the same questions, rightly or wrongly, and flip more the fewer
their bits. The tables are docs/choosing.md's.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

from benchmarks.markdown_table import markdown_table
from bitsure.base.decimals import decimal
from bitsure.comparison.choosing import QuantizerChoice, TaskLosses, choose
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.significance import POWER
from bitsure.results.verdict import NON_INFERIOR, UNDECIDED

MARGIN = 0.01
LEVEL = 0.95
OTHER_DRAWS = 10**6  # the first seed of those that find the true number of questions
CLOSE = 0.2  # of the number of questions that is predicted
HEAD = (
    "sweeps",
    "questions for 80% power",
    "predicted, 5%",
    "predicted, median",
    "predicted, 95%",
    "median off by",
    "within 20%",
    "interval holds it",
)


@dataclass(frozen=True)
class MadeUpSweep:
    """One model's sweep.

    Attributes:
        name: What it shows, in words.
        losses: True loss of accuracy of each candidate, the smallest candidate first.
        flips: The share of answers that each candidate changes.
        questions: Questions of each task.
        shared: Correlation of the candidates' flips.
        cluster_size: Questions that flip together.
    """

    name: str
    losses: tuple[float, ...]
    flips: tuple[float, ...]
    questions: tuple[int, ...]
    shared: float = 0.5
    cluster_size: int = 1

    def draw(self, seed: int) -> list[TaskLosses]:
        """Return the losses of one random sweep.

        Whether an answer flips follows from a normal number, of which candidates share a part, and so does the direction.
        """
        rng = np.random.default_rng([seed, *self.questions])
        return [self._draw_task(rng, n) for n in self.questions]

    def _draw_task(self, rng: np.random.Generator, n: int) -> TaskLosses:
        from scipy.special import ndtri

        units = n // self.cluster_size
        clusters: IntArray | None = None if self.cluster_size == 1 else np.repeat(np.arange(units), self.cluster_size)
        flips, losses = np.array(self.flips), np.array(self.losses)
        lost, won = (flips + losses) / 2, (flips - losses) / 2
        score = math.sqrt(self.shared) * rng.normal(size=(units, 1))
        score = score + math.sqrt(1 - self.shared) * rng.normal(size=(units, len(flips)))
        if clusters is not None:
            score = math.sqrt(0.5) * score[clusters] + math.sqrt(0.5) * rng.normal(size=(len(clusters), len(flips)))
        changed: FloatArray = (score < ndtri(lost)).astype(float) - (score > -ndtri(won))
        return TaskLosses(changed, clusters)

    def truth(self) -> tuple[FloatArray, list[int]]:
        """Return the true losses, and the candidates that may be chosen."""
        losses = np.array(self.losses)
        return losses, [i for i, loss in enumerate(losses) if loss < MARGIN]


AT_MARGIN = (0.3, 0.1, 0.01, 0.01, 0.01, 0.0, 0.0, 0.0)
FLIPS = (0.6, 0.3, 0.08, 0.06, 0.05, 0.02, 0.01, 0.005)
SWEEPS = (
    MadeUpSweep("three of eight at the margin", AT_MARGIN, FLIPS, (2000, 1000, 1000, 500)),
    MadeUpSweep("the same, flips independent", AT_MARGIN, FLIPS, (2000, 1000, 1000, 500), shared=0.0),
    MadeUpSweep("the same, in clusters of 5", AT_MARGIN, FLIPS, (2000, 1000, 1000, 500), cluster_size=5),
    MadeUpSweep("all eight at the margin, flips independent", (0.01,) * 8, (0.03,) * 8, (1500,), shared=0.0),
    MadeUpSweep("all eight at the margin, losses alone, 250 questions", (0.01,) * 8, (0.0101,) * 8, (250,), shared=0.0),
    MadeUpSweep("all eight at the margin, losses alone, 1,000 questions", (0.01,) * 8, (0.0101,) * 8, (1000,), shared=0.0),
    MadeUpSweep("forty at the margin", (0.01,) * 40, (0.05,) * 40, (2000,), shared=0.5),
)
LOSSLESS = (
    MadeUpSweep("300 questions, 5% flips", (0.0,) * 4, (0.05,) * 4, (300,)),
    MadeUpSweep("1,000 questions, 5% flips", (0.0,) * 4, (0.05,) * 4, (1000,)),
    MadeUpSweep("1,000 questions, 5% flips, twelve candidates", (0.0,) * 12, (0.05,) * 12, (1000,)),
    MadeUpSweep("1,000 questions, 10% flips", (0.0,) * 4, (0.10,) * 4, (1000,)),
    MadeUpSweep("2,000 questions, 10% flips, four tasks", (0.0,) * 4, (0.10,) * 4, (800, 600, 400, 200)),
    MadeUpSweep("2,000 questions, 10% flips, clusters of 5", (0.0,) * 4, (0.10,) * 4, (2000,), cluster_size=5),
    MadeUpSweep("4,000 questions, 20% flips", (0.0,) * 4, (0.20,) * 4, (4000,)),
)


def chosen(sweep: MadeUpSweep, seed: int) -> QuantizerChoice:
    """Return the choice in one random sweep."""
    return choose(sweep.draw(seed), range(len(sweep.losses)), MARGIN, LEVEL, seed=0)


def wrong_choices(sweep: MadeUpSweep, draws: int) -> tuple[float, float, float]:
    """Return the shares of sweeps that choose a candidate beyond the margin, call any such one non-inferior, or miss a loss."""
    losses, fit = sweep.truth()
    counts = np.zeros(3)
    for seed in range(draws):
        choice = chosen(sweep, seed)
        wrong = [i for i, one in enumerate(choice.candidates) if one.verdict == NON_INFERIOR and i not in fit]
        missed = any(not one.ci_low <= loss <= one.ci_high for one, loss in zip(choice.candidates, losses, strict=True))
        counts += (bool(choice.fit) and choice.fit[0] not in fit, bool(wrong), missed)
    share, any_wrong, missed_share = counts / draws
    return float(share), float(any_wrong), float(missed_share)


def true_power(sweep: MadeUpSweep, growth: float, draws: int) -> float:
    """Return how often the first candidate is shown to be within the margin with `growth` times the questions."""
    more = tuple(round(n * growth / sweep.cluster_size) * sweep.cluster_size for n in sweep.questions)
    grown = MadeUpSweep(sweep.name, sweep.losses, sweep.flips, more, sweep.shared, sweep.cluster_size)
    return float(np.mean([chosen(grown, OTHER_DRAWS + seed).candidates[0].verdict == NON_INFERIOR for seed in range(draws)]))


def needed_questions(sweep: MadeUpSweep, draws: int) -> float:
    """Return how many questions give the first candidate 80% power, by interpolating simulated powers on the probit scale."""
    from scipy.special import ndtri

    total = sum(sweep.questions)
    middle = float(np.median(predictions(sweep, 100)[:, 0]))
    growths = np.array([0.8, 0.9, 1.0, 1.1, 1.2]) * middle / total
    powers = np.clip([true_power(sweep, growth, draws) for growth in growths], 1 / draws, 1 - 1 / draws)
    slope, start = np.polyfit(np.sqrt(growths), ndtri(powers), 1)
    return float(total * ((ndtri(POWER) - start) / slope) ** 2)


def predictions(sweep: MadeUpSweep, draws: int) -> FloatArray:
    """Return the questions predicted for the first candidate in the m sweeps that leave it undecided, those asked included.

    Returns:
        The number, and the ends of its interval, shape (m, 3).
    """
    predicted = []
    for seed in range(draws):
        first = chosen(sweep, seed).candidates[0]
        if first.verdict == UNDECIDED and first.needed is not None:
            predicted.append((first.needed.if_lossless, first.needed.low, first.needed.high))
    return sum(sweep.questions) + np.array(predicted)


def prediction_row(sweep: MadeUpSweep, draws: int) -> tuple[str, ...]:
    """Return how well the questions needed are predicted, as a row of the second table."""
    (predicted, low, high), truth = predictions(sweep, draws).T, needed_questions(sweep, draws // 3)
    ends = (f"{value:,.0f}" for value in np.quantile(predicted, [0.05, 0.5, 0.95]))
    off = float(np.median(predicted)) / truth - 1
    within = float((np.abs(predicted / truth - 1) <= CLOSE).mean())
    covered = float(((low <= truth) & (truth <= high)).mean())
    return (sweep.name, f"{truth:,.0f}", *ends, decimal(off, "+.0%"), f"{within:.2f}", f"{covered:.2f}")


def main() -> None:
    """Simulate and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="sweeps of each row")
    draws = parser.parse_args().draws
    rows = [(sweep.name, *(f"{share:.3f}" for share in wrong_choices(sweep, draws))) for sweep in SWEEPS]
    columns = ("sweeps", "wrong choice", "any candidate wrongly non-inferior", "any interval misses")
    print(*markdown_table(columns, rows), "", sep="\n", flush=True)
    print(*markdown_table(HEAD, [prediction_row(sweep, draws) for sweep in LOSSLESS]), "", sep="\n")


if __name__ == "__main__":
    main()
