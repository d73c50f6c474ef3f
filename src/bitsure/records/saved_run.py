"""A run as its directory holds it: the records, their prompts, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitsure.base.errors import UserError
from bitsure.records.harness_log import read_harness_log
from bitsure.records.parquet import read_prompts, read_records
from bitsure.results import Quantization, read_if_there


@dataclass(frozen=True)
class SavedRun:
    """The records of one model.

    Attributes:
        records: A row a question.
        made_from: Task → what its records were made from; empty for the harness's logs.
        prompts: (task, doc_id) → prompt; empty where they were not kept.
        bits_per_weight: Bits of a quantized weight, scales and zero points counted; None in full precision or where unknown.
    """

    records: pa.Table
    made_from: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[tuple[str, int], str] = field(default_factory=dict)
    bits_per_weight: float | None = None


def read_saved_run(directory: Path) -> SavedRun:
    """Read a run directory, or one with the samples_*.jsonl that lm-evaluation-harness writes with --log_samples.

    Raises:
        UserError: If there is no such directory, it holds neither, or a file in it does not fit.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory.")
    refuse_sweep(directory)
    if (directory / "records.parquet").is_file():
        records, made_from = read_records(directory / "records.parquet")
        quantization = read_if_there(directory / "quantization.json", Quantization)
        bits = quantization.bits_per_weight if quantization else None
        return SavedRun(records, made_from, read_prompts(directory / "prompts.parquet"), bits)
    if any(directory.glob("samples_*.jsonl")):
        records, prompts = read_harness_log(directory)
        return SavedRun(records, prompts=prompts)
    raise UserError(
        f"{directory} holds neither records.parquet (a run of bitsure) nor samples_*.jsonl (of lm-evaluation-harness)."
    )


def is_sweep(directory: Path) -> bool:
    """Return whether a directory is a sweep's and not a run's."""
    if (directory / "plan.json").is_file():
        return True
    return not (directory / "config.yaml").is_file() and any(directory.glob("*/config.yaml"))


def refuse_sweep(directory: Path) -> None:
    """Raise UserError if a directory is a sweep's, where one of a run is needed."""
    if is_sweep(directory):
        raise UserError(
            f"{directory} is a sweep's directory: `bitsure report {directory}` reports it; or give its runs, the folders in it."
        )


def read_own_baseline(directory: Path) -> SavedRun | None:
    """Read the full-precision records that a run directory holds beside its own; None where there are none."""
    file = directory / "baseline.parquet"
    return SavedRun(*read_records(file)) if file.is_file() else None


def check_harness_versions(baseline: SavedRun, run: SavedRun) -> None:
    """Raise UserError if different versions of the harness scored a task of two runs."""
    for task in run.made_from.keys() & baseline.made_from.keys():
        before, after = (_harness_version(side.made_from[task]) for side in (baseline, run))
        if before != after:
            raise UserError(
                f"task {task}: lm_eval {before} scored the baseline, {after} the other run; their prompts may "
                "differ. Score one of them again."
            )


def _harness_version(made_from: object) -> object:
    match made_from:
        case {"libraries": {"lm_eval": version}}:
            return version
    return None
