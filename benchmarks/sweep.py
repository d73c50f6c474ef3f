"""A sweep's report from its cells' numbers, and a cell beside its work: `make bench-sweep` writes benchmarks/sweep.md.

The cells are made up: the names and shapes of metrics.json, comparison.json and changes.parquet are those of real runs, the
numbers are drawn.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from benchmarks import overhead
from bitsure.base.files import write_text
from bitsure.comparison import changes
from bitsure.comparison.changes import Changes
from bitsure.comparison.compare import compare
from bitsure.config.schema import MetricSettings
from bitsure.metrics.measure import MACRO, measure
from bitsure.records.record import Record
from bitsure.results import to_plain

HERE = Path(__file__).parent
SHAPES = ((25, 8), (2, 100))  # models and quantizers of 200 cells
QUANTIZERS = ("gptq8", "gptq4", "gptq3", "gptq2", "rtn8", "rtn4", "rtn3", "rtn2")
METRIC = MetricSettings(
    n_bins=15,
    binning="uniform",
    normalization="none",
    paper_compat=True,
    resamples=1000,
    confidence_level=0.95,
    alpha=0.01,
    seed=0,
)


def write_sweep(folder: Path, models: int, tasks: int, questions: int, quantizers: Sequence[str] = QUANTIZERS) -> None:
    """models × quantizers finished cells, two training seeds a size."""
    shape = _shape(tasks)
    for m in range(models):
        for k, quantizer in enumerate(quantizers):
            rng = np.random.default_rng([m, k])
            cell = folder / f"{m * len(quantizers) + k}-model{m}-{quantizer}"
            cell.mkdir(parents=True)
            _write_cell(cell, m, quantizer, shape, rng)
            rows = np.sort(np.random.default_rng(0).integers(0, 2**63, questions).astype(np.uint64))
            drawn = {
                task: Changes(rows, None, {name: rng.normal(-0.01, 0.1, questions) for name in changes.METRICS})
                for task in shape["metrics"]
                if task != MACRO
            }
            changes.write(cell / "changes.parquet", drawn)


def _shape(tasks: int) -> dict[str, dict]:
    """metrics.json, baseline_metrics.json and comparison.json of a small made-up run."""
    rng = np.random.default_rng(0)

    def rows(noise: float) -> list[Record]:
        return [_record(f"task_{t}", i, noise * rng.normal(size=2)) for t in range(tasks) for i in range(40)]

    few = METRIC.__class__(**asdict(METRIC) | {"resamples": 100})
    full, quantized = rows(1.0), rows(1.5)
    measured = {"metrics": measure(quantized, few), "baseline_metrics": measure(full, few)}
    return to_plain(measured | {"comparison": compare(full, quantized, few)})


def _record(task: str, i: int, scores: np.ndarray) -> Record:
    logprobs = (scores - np.logaddexp.reduce(scores)).tolist()
    names = [f"{what}{i}" for what in ("doc", "prompt", "target")]
    return Record(task, i, *names, ["no", "yes"], [i % 2], logprobs, [1, 1], [False, False], None)


def _write_cell(cell: Path, m: int, quantizer: str, shape: dict, rng: np.random.Generator) -> None:
    name, bits = f"model{m}", int(quantizer[-1])
    config = {
        "model": {"name": name},
        "quant": {"bits": bits, "name": quantizer},
        "calib": {"name": "c4", "nsamples": 128, "seqlen": 2048, "seed": 0},
        "task": {"name": "paper", "num_fewshot": None},
        "metric": asdict(METRIC),
        "tracking": {"mode": "disabled"},
    }
    parameters = 10**6 * 2 ** (m // 2)
    model = {
        "name": name,
        "series": "made-up",
        "training_seed": m % 2,
        "parameters": parameters,
        "bytes_on_disk": 2 * parameters,
    }
    proof = {
        "parameter_share": 0.9,
        "bits_per_weight": bits + 0.16,
        "bits_per_weight_coded": bits - 0.5,
        "quantizer": quantizer,
    }
    (cell / "config.yaml").write_text(yaml.safe_dump(config))
    files = {"provenance": {"model": model}, "quantization": proof, "status": {"state": "done", "error": None, "seconds": {}}}
    files["costs"] = {
        "quantizing": {"seconds": 20.0 if quantizer.startswith("gptq") else 2.0, "peak_memory_bytes": 700_000_000},
        "scoring_full_precision": {"tokens_per_second": 1000.0, "peak_memory_bytes": 750_000_000},
        "scoring_quantized": {"tokens_per_second": 900.0, "peak_memory_bytes": 800_000_000},
    }
    full = np.random.default_rng(m)
    files |= {what: _moved(found, full if what == "baseline_metrics" else rng) for what, found in shape.items()}
    for what, value in files.items():
        (cell / f"{what}.json").write_text(json.dumps(value, indent=1))


def _moved(found: dict, rng: np.random.Generator) -> dict:
    """The same numbers, each a little elsewhere."""
    return {
        task: {
            metric: {
                key: value + 0.01 * rng.normal() if key in ("value", "baseline") and value else value
                for key, value in one.items()
            }
            for metric, one in values.items()
        }
        for task, values in found.items()
    }


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
        command = [sys.executable, "-m", "benchmarks.sweep", "--one", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    return f"| {models} | {quantizers} | {tasks} | {questions:,} | {seconds:.1f} | {memory / 1e9:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=7)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # a process of its own, so that its memory is its own
    given = parser.parse_args()
    if given.one:
        print(*run(given.one))
        return
    rows = [_row(*shape, given.tasks, given.questions) for shape in SHAPES]
    print(*rows, sep="\n")
    text = "Made by `make bench-sweep`: the report of a sweep, contrasts of models and of quantizers included.\n\n"
    columns = ("models", "quantizers", "tasks", "questions a task", "seconds", "largest memory, GB")
    table = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"
    beside = overhead.table()
    print(beside)
    about = (
        "A cell of a sweep beside its work, seconds: pocket-300k quantized by rounding, 1,000 questions a "
        "task, four pictures a task and a W&B run; the baseline is in the store. Work is loading tasks "
        "and models, quantizing with its codes' entropies, and scoring; overhead is all else. Samples go to "
        "W&B while the last pictures are drawn, and count as report.\n\n"
    )
    lines = "\n".join(rows)
    write_text(HERE / "sweep.md", f"{text}{table}{lines}\n\n{about}{beside}\n")


if __name__ == "__main__":
    main()
