"""A run as its directory holds it: the records, their prompts, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitsure.base.errors import UserError
from bitsure.records.answer_units import answer_units
from bitsure.records.directory_kinds import LOGS, RECORDS, wrong_directory
from bitsure.records.generations import read_generations
from bitsure.records.harness_log import read_harness_log
from bitsure.records.parquet import read_prompts, read_records
from bitsure.records.text_tokens import TEXTS_TABLE
from bitsure.records.text_units import text_units, with_units
from bitsure.results import Quantization, read_if_there

BASELINE = "baseline.parquet"


@dataclass(frozen=True)
class SavedRun:
    """The records of one model.

    Attributes:
        records: A row a question; then a row for each document, or window, of a text.
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
    if (directory / RECORDS).is_file():
        records, made_from = read_answers(directory / RECORDS)
        quantization = read_if_there(directory / "quantization.json", Quantization)
        bits = quantization.bits_per_weight if quantization else None
        return SavedRun(records, made_from, read_prompts(directory / "prompts.parquet"), bits)
    if any(directory.glob(LOGS)):
        records, prompts = read_harness_log(directory)
        return SavedRun(records, prompts=prompts)
    raise wrong_directory(directory, "a run's is needed, or one with logs of lm-evaluation-harness")


def read_own_baseline(directory: Path) -> SavedRun | None:
    """Read the full-precision records that a run directory holds beside its own; None where there are none."""
    file = directory / BASELINE
    return SavedRun(*read_answers(file)) if file.is_file() else None


def texts_beside(records: Path) -> Path:
    """Return where the tokens of the texts lie that the model of a file of records was scored on."""
    return _neighbour(records, "texts")


def generations_beside(records: Path) -> Path:
    """Return where the answers lie that the model of a file of records wrote."""
    return _neighbour(records, "generations")


def _neighbour(records: Path, what: str) -> Path:
    """Return records.parquet → WHAT.parquet, baseline.parquet → baseline_WHAT.parquet, 001.parquet → WHAT/001.parquet."""
    if records.name == RECORDS:
        return records.with_name(f"{what}.parquet")
    if records.name == BASELINE:
        return records.with_name(f"baseline_{what}.parquet")
    return records.parent / what / records.name


def read_answers(records: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read a model's records, the answers that it wrote and the documents or windows of the texts that it was scored on.

    Args:
        records: The file of records; `texts_beside` and `generations_beside` say where the others lie, if there are some.

    Returns:
        The rows of all under `bitsure.records.record.SCHEMA`, and what made them.

    Raises:
        UserError: If a file does not fit, or none holds a row.
    """
    texts, generations = texts_beside(records), generations_beside(records)
    questions, made_from = read_records(records, may_be_empty=texts.is_file() or generations.is_file())
    answers, answers_made_from = read_generations(generations)
    made_from |= answers_made_from
    if len(answers):
        questions = with_units(questions, answer_units(answers))
    if texts.is_file():
        tokens, text_made_from = TEXTS_TABLE.read(texts)
        questions, made_from = with_units(questions, text_units(tokens, text_made_from)), made_from | text_made_from
    return questions, made_from


def check_harness_versions(baseline: SavedRun, run: SavedRun) -> None:
    """Raise UserError if different versions of the harness scored a task of two runs."""
    for task in [task for task in run.made_from if task in baseline.made_from]:
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
