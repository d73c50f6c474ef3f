"""The Python API of a notebook: load a run, measure arrays, compare two models. See docs/python.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.config.metric import MetricSettings
from bitsure.config.report_settings import read_report_settings
from bitsure.config.schema import VerdictSettings
from bitsure.records import SavedRun, read_own_baseline, read_saved_run, records_from_arrays
from bitsure.records.validity import without_repeats
from bitsure.results import Comparison, Costs, MetricsByTask, Provenance, Quantization, Verdict

if TYPE_CHECKING:
    import pandas as pd

Arrays: TypeAlias = tuple[Sequence[ArrayLike], Sequence[int] | Sequence[Sequence[int]]]
Source: TypeAlias = "str | Path | LoadedRun | pa.Table | Arrays"


@dataclass(frozen=True)
class LoadedRun:
    """What a run directory, or a directory of the harness's samples_*.jsonl, holds.

    Attributes:
        directory: Where it was read.
        records: The scored questions, a row each; docs/results.md names the columns.
        made_from: Task → what its records were made from, such as the harness's version; empty for harness logs.
        baseline_records: The same questions in full precision; None where the run has none.
        metrics: Task → metric → number; None for harness logs, which have no metrics.json.
        comparison: Task → metric → difference to full precision; None in full precision.
        verdict: Whether the model may be shipped; None in full precision.
        quantization: The proof of what changed; None in full precision.
        costs: Seconds and memory; None where they were not kept.
        provenance: Versions, machine, model; None for harness logs.
    """

    directory: Path
    records: pa.Table
    made_from: Mapping[str, Any]
    baseline_records: pa.Table | None
    metrics: MetricsByTask | None
    comparison: Comparison | None
    verdict: Verdict | None
    quantization: Quantization | None
    costs: Costs | None
    provenance: Provenance | None

    def to_pandas(self) -> pd.DataFrame:
        """Return the records as a data frame, a row a question. Raises UserError if pandas is not installed."""
        _pandas()
        return self.records.to_pandas()


@dataclass(frozen=True)
class Measured:
    """The numbers of one model: task → metric → number with its interval."""

    by_task: MetricsByTask

    def __getitem__(self, task: str) -> Mapping[str, results.Measurement]:
        return self.by_task[task]

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each task and metric, with the fields of `results.Measurement` as columns."""
        return _long(self.by_task)


@dataclass(frozen=True)
class Compared:
    """Two models on the same questions: differences `b − a` with tests, and the verdict on b."""

    by_task: Comparison
    verdict: Verdict

    def __getitem__(self, task: str) -> Mapping[str, results.Difference]:
        return self.by_task[task]

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each task and metric, with the fields of `results.Difference` as columns."""
        return _long(self.by_task)


def metric_settings(**changes: Any) -> MetricSettings:
    """Return the settings of conf/metric/standard.yaml, with changes such as `n_bins=10` or `confidence_level=0.9`."""
    return replace(read_report_settings()[0], **changes)


def verdict_settings(**changes: Any) -> VerdictSettings:
    """Return the margins of conf/verdict/report.yaml, with changes such as `accuracy_margin=0.02`."""
    return replace(read_report_settings()[1], **changes)


def load(directory: str | Path) -> LoadedRun:
    """Read a run directory, or one with the samples_*.jsonl that lm-evaluation-harness writes with --log_samples.

    Args:
        directory: The directory.

    Raises:
        UserError: If it holds neither, or a file in it does not fit; the file and field are named.
    """
    place = Path(directory)
    run, baseline = read_saved_run(place), read_own_baseline(place)
    return LoadedRun(
        directory=place,
        records=run.records,
        made_from=run.made_from,
        baseline_records=baseline.records if baseline else None,
        metrics=results.read_if_there(place / "metrics.json", MetricsByTask),
        comparison=results.read_if_there(place / "comparison.json", Comparison),
        verdict=results.read_if_there(place / "verdict.json", Verdict),
        quantization=results.read_if_there(place / "quantization.json", Quantization),
        costs=results.read_if_there(place / "costs.json", Costs),
        provenance=results.read_if_there(place / "provenance.json", Provenance),
    )


def measure(
    choice_logprobs: Sequence[ArrayLike], gold: Sequence[int] | Sequence[Sequence[int]], settings: MetricSettings | None = None
) -> Measured:
    """Measure confidence, accuracy and calibration of one model's answers.

    Args:
        choice_logprobs: For each of n questions the log-probabilities of its choices, nats, ≤ 0: an array of shape (n, K), or a
            list of n arrays where questions have different numbers of choices.
        gold: For each question the index of the right choice, or a list of indices where several are right.
        settings: Bins, resamples, confidence level; None: `metric_settings()`.

    Returns:
        The numbers of one task, named `questions`.

    Raises:
        UserError: If lengths differ, a log-probability is above 0 or not finite, or a gold index names no choice.
    """
    from bitsure.metrics.run_metrics import measure as measure_records

    with threadpool_limits(1, "blas"):  # as a report does: the last digit depends on the number of threads
        return Measured(measure_records(records_from_arrays(choice_logprobs, gold), settings or metric_settings()))


def compare(a: Source, b: Source, settings: MetricSettings | None = None, margins: VerdictSettings | None = None) -> Compared:
    """Compare two models on the questions that both were asked.

    Args:
        a: The model to compare with, usually full precision: a run directory, a directory of harness logs, a loaded run,
            records, or arrays as a pair (choice_logprobs, gold) as `measure` takes them.
        b: The other model, usually quantized, in the same forms.
        settings: Bins, resamples, confidence level; None: those of b's run, or
            `metric_settings()` where b is no run of bitsure.
        margins: The losses that are small enough to ship; None: those of b's run, or `verdict_settings()`.

    Returns:
        Differences b − a by task and metric, and the verdict on b.

    Raises:
        UserError: If no question is in both, other versions of the harness asked them, or a source cannot be read.
    """
    from bitsure.comparison.run_differences import compare_runs

    own_metric, own_margins = read_report_settings(_config(b))
    return Compared(*compare_runs(_saved(a), _saved(b), settings or own_metric, margins or own_margins))


def _saved(source: Source) -> SavedRun:
    if isinstance(source, LoadedRun):
        bits = source.quantization.bits_per_weight if source.quantization else None
        return SavedRun(source.records, source.made_from, bits_per_weight=bits)
    if isinstance(source, str | Path):
        return read_saved_run(Path(source))
    if isinstance(source, tuple):
        return SavedRun(records_from_arrays(*source))
    return SavedRun(without_repeats(source, "the records"))


def _config(source: Source) -> Path | None:
    """Return the config.yaml of a run's directory; None for what comes from no directory."""
    if isinstance(source, LoadedRun):
        return source.directory / "config.yaml"
    return Path(source) / "config.yaml" if isinstance(source, str | Path) else None


def _long(by_task: Mapping[str, Mapping[str, results.Measurement]]) -> pd.DataFrame:
    rows = [
        {"task": task, "metric": metric, **results.to_plain(number)}
        for task, numbers in by_task.items()
        for metric, number in numbers.items()
    ]
    return _pandas().DataFrame(rows)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise UserError("to_pandas() needs pandas: python -m pip install 'bitsure[pandas]'") from error
    return pandas
