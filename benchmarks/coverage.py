"""How often intervals cover the truth, and tests reject a true null: `make bench-coverage` writes docs/coverage.md.

Answers are drawn at random, then measured and compared as those of a run. Finished parts are kept, so that an interrupted
command goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.markdown_table import markdown_table
from benchmarks.metrics import CHOICES, records_table
from bitsure import metric_settings
from bitsure.base.files import atomic_path, write_text
from bitsure.comparison import compare
from bitsure.metrics import measure
from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.estimation import FEWEST
from bitsure.results import Measurement

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
SIZES = (20, 50, 200, 2000)
CLUSTERS = (5, 20, 100)
CLUSTER_SIZE = 10
MOST = 200_000  # questions that stand for infinitely many
BATCH = 50  # draws of a part
NOMINAL_ERROR = 0.05
ROUNDING = 1e-12
NOTHING = "–"
METRIC = metric_settings(resamples=500)
FEWEST_SHOWN = 0.5  # of the draws that have an interval; below, it counts as not shown


@dataclass(frozen=True)
class Counts:
    """How many draws of one number had an interval, how many of those covered; how many had a test, and how many p ≤ .05."""

    shown: int = 0
    covered: int = 0
    tested: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Scenario:
    """Questions of one kind.

    Attributes:
        n: Number of questions.
        n_clusters: Number of clusters they come in; None if every question is alone.
        temperature: The temperature at which the full model's probabilities are true.
        is_null: Whether the second model differs from the first by chance alone.
    """

    n: int
    n_clusters: int | None = None
    temperature: float = 1.4
    is_null: bool = False

    @property
    def name(self) -> str:
        """A name for files."""
        kind = "null" if self.is_null else "calibrated" if self.temperature == 1 else "drawn"
        return f"{kind}_{self.n}" + (f"_in_{self.n_clusters}" if self.n_clusters else "")

    @property
    def heading(self) -> str:
        """The heading of its column."""
        return f"{self.n_clusters} clusters" if self.n_clusters else f"n = {self.n:,}"

    def many(self) -> Scenario:
        """Return the same with so many questions that their statistics are taken for the truth."""
        return dataclasses.replace(self, n=MOST, n_clusters=self.n_clusters and MOST // CLUSTER_SIZE)


def scenarios(**fields: float | bool) -> list[Scenario]:
    """Return the columns of a table."""
    alone = [Scenario(n, **fields) for n in SIZES]
    return alone + [Scenario(count * CLUSTER_SIZE, count, **fields) for count in CLUSTERS]


def draw(scenario: Scenario, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return the records of two models that were asked the same questions.

    The first is overconfident where `temperature` is above 1. The second is the first with noise and a little flatter.
    Questions of a cluster share how sharp the model is, how often it is right, and what the noise does to its first choice.
    """
    n = scenario.n
    rng = np.random.default_rng([seed, n, scenario.n_clusters or 0])
    z = rng.normal(0, 2, (n, CHOICES))
    clusters: IntArray | None = None
    truth, shared = z / scenario.temperature, np.zeros(n)
    if scenario.n_clusters:
        clusters = np.arange(n) % scenario.n_clusters
        effects = rng.normal(0, 1, (3, scenario.n_clusters))[:, clusters]
        z *= np.exp(0.2 * effects[0])[:, None]
        truth, shared = z / scenario.temperature, 0.2 * effects[2]
        truth[np.arange(n), z.argmax(1)] += 0.6 * effects[1]
    gold = (truth + rng.gumbel(0, 1, z.shape)).argmax(1)
    second = z + rng.normal(0, 0.35, z.shape)
    second[np.arange(n), z.argmax(1)] += shared
    if scenario.is_null:
        first = z.argmax(1)
        z = z + rng.normal(0, 0.35, z.shape)
        if clusters is not None:
            z[np.arange(n), first] += 0.2 * rng.normal(0, 1, clusters.max() + 1)[clusters]
    else:
        second *= 0.97
    as_logprobs = [side - np.logaddexp.reduce(side, axis=1, keepdims=True) - 5 for side in (z, second)]
    full, quantized = (records_table(side, gold, clusters) for side in as_logprobs)
    return full, quantized


def results(scenario: Scenario, seed: int) -> dict[str, Measurement]:
    """Return every number of the second model, and every difference of the two, by their names in the table."""
    full, quantized = draw(scenario, seed)
    measured: dict[str, Measurement] = {}
    if not scenario.is_null:
        measured |= {f"metrics/{name}": value for name, value in measure(quantized, METRIC)["t"].items()}
    if scenario.temperature != 1:
        measured |= {f"comparison/{name}": value for name, value in compare(full, quantized, METRIC)["t"].items()}
    return measured


def true_values(scenario: Scenario, parts: Path) -> dict[str, float]:
    """Return what each number is for very many questions."""
    many = scenario.many()
    kept = remembered(parts / f"truth_{many.name}.npz", lambda: {name: row(one) for name, one in results(many, 0).items()})
    return {name: float(values[0]) for name, values in kept.items()}


def row(result: Measurement) -> FloatArray:
    """Return value, interval and p-value of a result, shape (4,); NaN where it has none."""
    values = (result.value, result.ci_low, result.ci_high, getattr(result, "p_value", None))
    return np.array([math.nan if value is None else value for value in values])


def draw_part(scenario: Scenario, part: int) -> dict[str, FloatArray]:
    """Return for each name the rows of a part's draws, shape (BATCH, 4)."""
    rows: dict[str, FloatArray] = {}
    for i in range(BATCH):
        for name, result in results(scenario, part * BATCH + i + 1).items():
            rows.setdefault(name, np.full((BATCH, 4), math.nan))[i] = row(result)
    return rows


def remembered(path: Path, make: Callable[[], dict[str, FloatArray]]) -> dict[str, FloatArray]:
    """Return the arrays that a file holds; made and written first where it is missing."""
    if not path.is_file():
        arrays = make()
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{name.replace("/", "|"): values for name, values in arrays.items()})
    with np.load(path) as file:
        return {name.replace("|", "/"): file[name] for name in file.files}


def count(scenario: Scenario, draws: int, parts: Path) -> dict[str, Counts]:
    """Return the counts of all draws of a scenario, by name."""
    started = time.perf_counter()
    truth = {} if scenario.is_null else true_values(scenario, parts)
    batches = [
        remembered(parts / f"{scenario.name}_{part}.npz", functools.partial(draw_part, scenario, part))
        for part in range(draws // BATCH)
    ]
    counts = {}
    for name in dict.fromkeys(name for batch in batches for name in batch):
        value, low, high, p_value = np.concatenate([batch[name] for batch in batches if name in batch]).T
        target = np.nanmean(value) if is_fitted(name) else truth.get(name, math.nan)
        shown, tested = np.isfinite(low) & np.isfinite(high), np.isfinite(p_value)
        covered = (low - ROUNDING <= target) & (target <= high + ROUNDING)
        counts[name] = Counts(
            int(shown.sum()), int(covered[shown].sum()), int(tested.sum()), int((p_value <= NOMINAL_ERROR).sum())
        )
    print(f"{scenario.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return counts


def is_fitted(name: str) -> bool:
    """Return whether a number uses what was fitted on other folds, so that its truth depends on how many there are."""
    return any(fitted in name for fitted in ("temperature", "deferral", "conformal"))


def coverage_table(columns: list[Scenario], counts: list[dict[str, Counts]], prefix: str, draws: int) -> str:
    """Return the shares of intervals that cover the truth as a table; – where no interval is shown."""

    def share(count: Counts) -> str:
        return f"{count.covered / count.shown:.2f}" if count.shown >= FEWEST_SHOWN * draws else NOTHING

    return table_of(columns, counts, prefix, share)


def rejection_table(columns: list[Scenario], counts: list[dict[str, Counts]], draws: int) -> str:
    """Return the shares of tests with p ≤ .05 as a table; – where there is no test."""

    def share(count: Counts) -> str:
        return f"{count.rejected / count.tested:.3f}" if count.tested >= FEWEST_SHOWN * draws else NOTHING

    return table_of(columns, counts, "comparison/", share)


def table_of(columns: list[Scenario], counts: list[dict[str, Counts]], prefix: str, share: Callable[[Counts], str]) -> str:
    """Return a table with a row for each name that has anything to show."""
    rows = []
    for name in dict.fromkeys(name for column in counts for name in column if name.startswith(prefix)):
        cells = [share(column.get(name, Counts())) for column in counts]
        if set(cells) != {NOTHING} and not name.endswith("_if_calibrated"):  # the range of draws, no confidence interval
            rows.append((name.removeprefix(prefix), *cells))
    return "\n".join(markdown_table(("metric", *(column.heading for column in columns)), rows)) + "\n"


def main() -> None:
    """Draw, count and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200, help=f"draws of each column, a multiple of {BATCH}")
    parser.add_argument("--parts", type=Path, default=Path("outputs/coverage"), help="folder of the finished parts")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    arguments.parts.mkdir(parents=True, exist_ok=True)
    kinds = {"drawn": scenarios(), "calibrated": scenarios(temperature=1.0)[: len(SIZES)], "null": scenarios(is_null=True)}
    counts = {
        kind: [count(scenario, arguments.draws, arguments.parts) for scenario in columns] for kind, columns in kinds.items()
    }
    calibration_errors = [
        {name: values for name, values in column.items() if "calibration_error" in name or "brier_re" in name}
        for column in counts["calibrated"]
    ]
    parts = [
        (Path(__file__).parent / "coverage_head.md")
        .read_text(encoding="utf-8")
        .format(
            draws=arguments.draws,
            resamples=METRIC.resamples,
            error=2 * math.sqrt(NOMINAL_ERROR * (1 - NOMINAL_ERROR) / arguments.draws),
            most=MOST,
            cluster_size=CLUSTER_SIZE,
            fewest=FEWEST,
        ),
        "## Numbers of one run\n",
        coverage_table(kinds["drawn"], counts["drawn"], "metrics/", arguments.draws),
        "## Differences\n",
        coverage_table(kinds["drawn"], counts["drawn"], "comparison/", arguments.draws),
        "## Calibration errors of a calibrated model\n",
        coverage_table(kinds["calibrated"], calibration_errors, "metrics/", arguments.draws),
        "## Tests where nothing differs\n",
        rejection_table(kinds["null"], counts["null"], arguments.draws),
    ]
    write_text(arguments.page, "\n".join(parts))
    print(arguments.page)


if __name__ == "__main__":
    main()
