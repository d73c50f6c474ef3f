"""Cells of a sweep: finished ones with answers of one's own, and such as did not finish."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import yaml

from bitsure.comparison import compare
from bitsure.comparison.changes import answer_changes, write_changes
from bitsure.metrics import measure
from bitsure.records.joining import join
from bitsure.records.record import Record
from bitsure.results import Status, write
from tests.builders.answers import two_choices
from tests.builders.result_files import model_origin, provenance, quantization
from tests.builders.settings import METRIC

QUANTIZERS = ("gptq4", "rtn4", "rtn2")
HOSTILE = '<script>alert("x")</script>\u202egnp'


def leave_unfinished(folder: Path, name: str, **status) -> None:
    """Leave a cell with a config and a status alone."""
    (folder / name).mkdir()
    (folder / name / "config.yaml").write_text(
        f"model: {{name: other}}\nquant: {{name: gptq4}}\ncalib: {{name: '{HOSTILE}'}}\n"
    )
    (folder / name / "status.json").write_text(json.dumps(status))


def write_plan(folder: Path, *cells: tuple[str, str]) -> None:
    """Write plan.json with cells' directories and names."""
    planned = [{"directory": directory, "overrides": [], "name": name} for directory, name in cells]
    (folder / "plan.json").write_text(json.dumps({"cells": planned}))


def write_quantized(folder: Path, quantizer: str, lost: int, won: int = 0, questions: int = 600, **tasks: float) -> Path:
    """Write a finished cell of a model that is right on four fifths of one task's questions.

    Args:
        folder: The sweep's directory.
        quantizer: Its name, which ends in its bits.
        lost: How many right answers it makes wrong.
        won: How many wrong ones it makes right.
        questions: Questions of the task `t`.
        tasks: Further tasks of 40 questions → full precision's accuracy, which it keeps.
    """
    cell, bits, settings = folder / quantizer, int(quantizer[-1]), replace(METRIC, resamples=100)
    cell.mkdir(parents=True)
    right = np.arange(questions) % 5 > 0
    changed = right.copy()
    changed[np.flatnonzero(right)[:lost]] = False
    changed[np.flatnonzero(~right)[:won]] = True
    full, quantized = _answers(right, "t"), _answers(changed, "t")
    for task, accuracy in tasks.items():
        both = _answers(np.arange(40) < 40 * accuracy, task)
        full, quantized = full + both, quantized + both
    config = {
        "model": {"name": "m"},
        "quant": {"bits": bits, "name": quantizer},
        "calib": {"name": "c4", "nsamples": 128, "seqlen": 2048, "seed": 0},
        "task": {"names": ["t", *tasks]},
        "metric": asdict(settings),
    }
    (cell / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    write(cell / "status.json", Status(state="done", error=None, seconds={}))
    origin = model_origin().model_copy(update={"parameters": 1000, "bytes_on_disk": 2000})
    write(cell / "provenance.json", provenance(model=origin))
    write(cell / "quantization.json", quantization(quantizer=quantizer, bits_per_weight=float(bits), parameter_share=1.0))
    write(cell / "metrics.json", measure(quantized, settings))
    write(cell / "comparison.json", compare(full, quantized, settings))
    write_changes(cell / "changes.parquet", answer_changes(join(full, quantized), settings))
    return cell


def _answers(right: np.ndarray, task: str) -> list[Record]:
    """The first and the second choice take turns at being the right one."""
    return [two_choices(0.9 if is_right == (i % 2 == 0) else 0.1, i % 2, i, task) for i, is_right in enumerate(right)]
