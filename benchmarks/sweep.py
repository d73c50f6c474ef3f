"""The time of a sweep's report, and the overhead of a cell: `make bench-sweep` writes benchmarks/sweep.md.

The cells are made up: names and shapes of metrics.json, comparison.json and changes.parquet are those of real runs, the
numbers are random.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import yaml

from benchmarks import composing, overhead, stored_work
from bitsure import metric_settings
from bitsure.base.files import write_text
from bitsure.comparison import compare
from bitsure.comparison.changes import CHANGE_METRICS, AnswerChanges, write_changes
from bitsure.metrics import measure
from bitsure.metrics.metric_names import MACRO
from bitsure.records.record import Record
from bitsure.results import Comparison, Costs, Measurement, MetricsByTask, Provenance, Quantization, Status, write
from bitsure.results.costs import ScoringCosts, WorkCosts
from bitsure.results.quantization import LayerError
from bitsure.results.run_files import Machine, ModelOrigin

T = TypeVar("T", bound=Measurement)

HERE = Path(__file__).parent
SHAPES = ((25, 8), (2, 100))  # models and quantizers of 200 cells
QUANTIZERS = ("gptq8", "gptq4", "gptq3", "gptq2", "rtn8", "rtn4", "rtn3", "rtn2")
METRIC = metric_settings(paper_compat=True)


def write_sweep(folder: Path, models: int, tasks: int, questions: int, quantizers: Sequence[str] = QUANTIZERS) -> None:
    """Write models × quantizers finished cells, with two training seeds a size."""
    numbers = _made_up_run(tasks)
    for m in range(models):
        for k, quantizer in enumerate(quantizers):
            rng = np.random.default_rng([m, k])
            cell = folder / f"{m * len(quantizers) + k}-model{m}-{quantizer}"
            cell.mkdir(parents=True)
            _write_about(cell, m, quantizer)
            _write_numbers(cell, m, numbers, rng)
            rows = np.sort(np.random.default_rng(0).integers(0, 2**63, questions).astype(np.uint64))
            of_tasks = {
                task: AnswerChanges(rows, None, {name: rng.normal(-0.01, 0.1, questions) for name in CHANGE_METRICS})
                for task in numbers.metrics
                if task != MACRO
            }
            write_changes(cell / "changes.parquet", of_tasks)


class Numbers(NamedTuple):
    """The numbers of a run."""

    metrics: MetricsByTask
    baseline_metrics: MetricsByTask
    comparison: Comparison


def _made_up_run(tasks: int) -> Numbers:
    """The numbers of a small made-up run."""
    rng = np.random.default_rng(0)

    def rows(noise: float) -> list[Record]:
        return [_record(f"task_{t}", i, noise * rng.normal(size=2)) for t in range(tasks) for i in range(40)]

    few = replace(METRIC, resamples=100)
    full, quantized = rows(1.0), rows(1.5)
    return Numbers(measure(quantized, few), measure(full, few), compare(full, quantized, few))


def _record(task: str, i: int, scores: np.ndarray) -> Record:
    logprobs = (scores - np.logaddexp.reduce(scores)).tolist()
    hashes = [f"{kind}{i}" for kind in ("doc", "prompt", "target")]
    return Record(task, i, *hashes, ["no", "yes"], [i % 2], logprobs, [1, 1], [False, False], None)


def _write_about(cell: Path, m: int, quantizer: str) -> None:
    """Write what a cell says of itself: settings, status, provenance, quantization and costs."""
    bits = int(quantizer[-1])
    config = {
        "model": {"name": f"model{m}"},
        "quant": {"bits": bits, "name": quantizer},
        "calib": {"name": "c4", "nsamples": 128, "seqlen": 2048, "seed": 0},
        "task": {"name": "paper", "num_fewshot": None},
        "metric": asdict(METRIC),
        "tracking": {"mode": "disabled"},
    }
    (cell / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    write(cell / "status.json", Status(state="done", error=None, seconds={}))
    write(cell / "provenance.json", _provenance(m))
    quantization = Quantization(
        modules_quantized=["layers.0"],
        modules_skipped={},
        parameter_share=0.9,
        bits_per_weight=bits + 0.16,
        relative_error=0.1,
        group_sizes={"128": 1},
        other_tensors_rounded=[],
        layers={"layers.0": LayerError(weight_error=0.1, output_error=0.1)},
        quantizer=quantizer,
        bits_per_weight_coded=bits - 0.5,
    )
    write(cell / "quantization.json", quantization)
    quantizing = WorkCosts(
        seconds=20.0 if quantizer.startswith("gptq") else 2.0, peak_memory_bytes=700_000_000, peak_gpu_memory_bytes=None
    )
    costs = Costs(
        quantizing=quantizing,
        scoring_full_precision=_scoring_costs(1000.0, 750_000_000),
        scoring_quantized=_scoring_costs(900.0, 800_000_000),
    )
    write(cell / "costs.json", costs)


def _provenance(m: int) -> Provenance:
    parameters = 10**6 * 2 ** (m // 2)
    model = ModelOrigin(
        name=f"model{m}",
        series="made-up",
        training_seed=m % 2,
        revision=None,
        fingerprint="made-up",
        dtype="float32",
        repo=None,
        full_dtype=None,
        device_map=None,
        parameters=parameters,
        bytes_on_disk=2 * parameters,
    )
    machine = Machine(system="made-up", processor="made-up", cores=2, threads=None)
    return Provenance(
        command=["main.py"], git_commit=None, git_changed_files=0, python="3", packages={}, machine=machine, model=model
    )


def _scoring_costs(tokens_per_second: float, peak_memory: int) -> ScoringCosts:
    return ScoringCosts(
        seconds=1.0,
        tokens=int(tokens_per_second),
        peak_memory_bytes=peak_memory,
        peak_gpu_memory_bytes=None,
        tokens_per_second=tokens_per_second,
        by_task={},
    )


def _write_numbers(cell: Path, m: int, numbers: Numbers, rng: np.random.Generator) -> None:
    """Write metrics and comparison, each number moved a little; full precision's are the same in all cells of a model."""
    write(cell / "metrics.json", _moved(numbers.metrics, rng))
    write(cell / "baseline_metrics.json", _moved(numbers.baseline_metrics, np.random.default_rng(m)))
    write(cell / "comparison.json", _moved(numbers.comparison, rng))


def _moved(values: Mapping[str, Mapping[str, T]], rng: np.random.Generator) -> dict[str, dict[str, T]]:
    """The same numbers, each a little elsewhere."""
    return {task: {metric: _shifted(number, rng) for metric, number in of_task.items()} for task, of_task in values.items()}


def _shifted(number: T, rng: np.random.Generator) -> T:
    fields = {name: getattr(number, name) for name in ("value", "baseline") if name in number.model_fields_set}
    return number.model_copy(update={name: value + 0.01 * rng.normal() for name, value in fields.items() if value})


def run(folder: Path) -> tuple[float, float]:
    """Seconds of the whole report, imports included, and the process's largest memory in bytes."""
    started = time.perf_counter()
    from bitsure.sweep.report.building import build_sweep_report

    build_sweep_report(folder)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _row(models: int, quantizers: int, tasks: int, questions: int) -> str:
    """A row of the table, measured."""
    names = QUANTIZERS if quantizers == len(QUANTIZERS) else [f"made-up{k}-{2 + k % 7}" for k in range(quantizers)]
    with tempfile.TemporaryDirectory() as folder:
        write_sweep(Path(folder), models, tasks, questions, names)
        command = [sys.executable, "-m", "benchmarks.sweep", "--report-of", folder]
        done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    seconds, memory = map(float, done.stdout.split())
    return f"| {models} | {quantizers} | {tasks} | {questions:,} | {seconds:.1f} | {memory / 1e9:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=7)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--report-of", type=Path, help=argparse.SUPPRESS)  # in a new process, to measure its memory
    given = parser.parse_args()
    if given.report_of:
        print(*run(given.report_of))
        return
    rows = [_row(*shape, given.tasks, given.questions) for shape in SHAPES]
    print(*rows, sep="\n")
    text = "Made by `make bench-sweep`: the report of a sweep, contrasts of models and of quantizers included.\n\n"
    columns = ("models", "quantizers", "tasks", "questions a task", "seconds", "largest memory, GB")
    table = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"
    overheads = overhead.table()
    stored = stored_work.table()
    composed = composing.table()
    print(overheads, stored, composed, sep="\n")
    about = (
        "The overhead of a cell, seconds: pocket-300k quantized by rounding, 1,000 questions a "
        "task, four pictures a task and a W&B run; the baseline is in the store. Work is loading tasks "
        "and models, quantizing with its codes' entropies, and scoring; overhead is all else. Pictures "
        "are drawn first (report), then everything is logged (W&B).\n\n"
    )
    lines = "\n".join(rows)
    about_composing = "Composing and checking the settings of a sweep's cells, all processes together:"
    parts = (f"{text}{table}{lines}", f"{about}{overheads}", f"{stored_work.ABOUT}\n\n{stored}", about_composing, composed)
    write_text(HERE / "sweep.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
