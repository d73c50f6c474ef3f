"""The Python API of a notebook: load a run, measure arrays, compare two models. See docs/python.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.config.report_settings import read_report_settings
from bitsure.config.schema import MetricSettings, VerdictSettings
from bitsure.records import Record, Records, read_harness_log, read_records, to_table
from bitsure.records.validity import check_records, without_repeats
from bitsure.results import Comparison, Costs, MetricsByTask, Provenance, Quantization, Verdict

if TYPE_CHECKING:
    import pandas as pd

Arrays: TypeAlias = tuple[Sequence[ArrayLike], Sequence[int] | Sequence[Sequence[int]]]
NO_RUN = Path("config.yaml of no run")  # no such file: the settings of conf/ hold
Source: TypeAlias = "str | Path | LoadedRun | Records | Arrays"


@dataclass(frozen=True)
class LoadedRun:
    """What a run directory, or a directory of the harness's samples_*.jsonl, holds.

    Attributes:
        directory: Where it was read.
        records: The scored questions, a row each; docs/results.md names the columns.
        baseline_records: The same questions in full precision; None where the run has none.
        metrics: Task → metric → number; None where metrics.json is not there, as beside harness logs.
        comparison: Task → metric → difference to full precision; None in full precision.
        verdict: May the model be shipped? None in full precision.
        quantization: The proof of what changed; None in full precision.
        costs: Seconds and memory; None where they were not kept.
        provenance: Versions, machine, model; None beside harness logs.
    """

    directory: Path
    records: pa.Table
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
    return replace(read_report_settings(NO_RUN)[0], **changes)


def verdict_settings(**changes: Any) -> VerdictSettings:
    """Return the margins of conf/verdict/report.yaml, with changes such as `accuracy_margin=0.02`."""
    return replace(read_report_settings(NO_RUN)[1], **changes)


def load(directory: str | Path) -> LoadedRun:
    """Read a run directory, or one with the samples_*.jsonl that lm-evaluation-harness writes with --log_samples.

    Args:
        directory: The directory.

    Raises:
        UserError: If it holds neither, or a file in it does not fit; the file and field are named.
    """
    place = Path(directory)
    records, baseline = _read(place)
    return LoadedRun(
        directory=place,
        records=records,
        baseline_records=baseline,
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
        return Measured(measure_records(_from_arrays(choice_logprobs, gold), settings or metric_settings()))


def compare(a: Source, b: Source, settings: MetricSettings | None = None, margins: VerdictSettings | None = None) -> Compared:
    """Compare two models on the questions that both were asked.

    Args:
        a: The model to compare with, usually full precision: a run directory, a directory of harness logs, a loaded run,
            records, or arrays as a pair (choice_logprobs, gold) as `measure` takes them.
        b: The other model, usually quantized, in the same forms.
        settings: Bins, resamples, confidence level; None: `metric_settings()`.
        margins: The losses that are small enough to ship; None: `verdict_settings()`.

    Returns:
        Differences b − a by task and metric, and the verdict on b.

    Raises:
        UserError: If no question is in both, or a source cannot be read.
    """
    from bitsure.comparison.differences import compare as compare_records
    from bitsure.comparison.non_inferiority import judge

    metric = settings or metric_settings()
    with threadpool_limits(1, "blas"):
        differences = compare_records(_records(a), _records(b), metric)
    return Compared(differences, judge(differences, margins or verdict_settings(), metric.confidence_level))


def _records(source: Source) -> pa.Table:
    if isinstance(source, LoadedRun):
        return source.records
    if isinstance(source, str | Path):
        return _read(Path(source))[0]
    if isinstance(source, tuple):
        return _from_arrays(*source)
    return without_repeats(to_table(source), "the records")


def _read(directory: Path) -> tuple[pa.Table, pa.Table | None]:
    """The records of a directory, and those of its own full-precision run."""
    if (directory / "records.parquet").is_file():
        baseline = directory / "baseline.parquet"
        return read_records(directory / "records.parquet")[0], read_records(baseline)[0] if baseline.is_file() else None
    if any(directory.glob("samples_*.jsonl")):
        return read_harness_log(directory)[0], None
    raise UserError(
        f"{directory} holds neither records.parquet (a run of ours) nor samples_*.jsonl (of lm-evaluation-harness)."
    )


def _from_arrays(choice_logprobs: Sequence[ArrayLike], gold: Sequence[int] | Sequence[Sequence[int]]) -> pa.Table:
    if len(choice_logprobs) != len(gold):
        raise UserError(f"choice_logprobs has {len(choice_logprobs)} questions, gold has {len(gold)}: give one gold for each.")
    rows = [_record(i, logprobs, right) for i, (logprobs, right) in enumerate(zip(choice_logprobs, gold, strict=True))]
    records = to_table(rows)
    check_records(records, "choice_logprobs and gold")
    return records


def _record(number: int, logprobs: ArrayLike, gold: Any) -> Record:
    array = np.asarray(logprobs, dtype=float)
    if array.ndim != 1:
        raise UserError(f"choice_logprobs, question {number}: shape {array.shape}; give an array of shape (K,).")
    values = array.tolist()
    return Record(
        task="questions",
        doc_id=number,
        doc_hash=str(number),
        prompt_hash=str(number),
        target_hash=str(number),
        choices=[str(k) for k in range(len(values))],
        gold=[int(k) for k in np.atleast_1d(gold)],
        choice_logprobs=values,
        choice_tokens=None,
        choice_greedy=[False] * len(values),
        token_logprobs=None,
    )


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
