"""The cost of a piece of work, which is written next to its result in the store, and how much arithmetic such work is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bitsure.base.files import write_text
from bitsure.base.resources import ResourceUse

COST_FILE = "cost.json"  # in the directory of a store's entry
STATISTICS_PASSES = 4  # over the calibration text: two through each block, and the sums of its inputs


@dataclass(frozen=True)
class EntryCost:
    """What it cost to make an entry of the store: the content of cost.json. None where it does not apply or is not known."""

    what: str | None
    """A quantizer's name, "scoring", or "served" or "vllm" where these scored."""
    seconds: float
    """Wall time, seconds."""
    work: float | None
    """Floating-point operations, by the formulas below."""
    peak_memory_bytes: int | None = None
    """The most memory that the process held, bytes."""
    peak_gpu_memory_bytes: int | None = None
    """The most that tensors took on all GPUs, bytes; None on a machine without one."""
    tokens: int | None = None
    """Tokens that were run, padding counted."""
    questions: int | None = None
    """Questions that were scored."""


def scoring_cost(what: str, use: ResourceUse, work: float, tokens: int, questions: int) -> EntryCost:
    """Return the cost of scoring a task from what was measured of it."""
    return EntryCost(what, use.seconds, work, use.peak_memory_bytes, use.peak_gpu_memory_bytes, tokens, questions)


def write_cost(entry: Path, cost: EntryCost) -> None:
    """Write the cost of a store's entry beside its result; later estimates read it."""
    stated = {key: value for key, value in asdict(cost).items() if value is not None}
    write_text(entry / COST_FILE, json.dumps(stated | {"seconds": round(cost.seconds, 3)}))


def read_cost(entry: Path) -> EntryCost | None:
    """Return the cost of a store's entry; None where it was not written."""
    file = entry / COST_FILE
    if not file.is_file():
        return None
    stated = json.loads(file.read_text(encoding="utf-8"))
    return EntryCost(**{field.name: stated.get(field.name) for field in fields(EntryCost)})


def scoring_work(parameters: int, tokens: int) -> float:
    """Return the floating-point operations of a forward pass over so many tokens, attention left out."""
    return 2.0 * parameters * tokens


def quantizing_work(parameters: int, width: int, tokens: int) -> float:
    """Return the floating-point operations of quantizing with calibration text: the passes, and a solver's columns.

    Args:
        parameters: Number of the model's parameters.
        width: The model's hidden size: so many columns are solved for.
        tokens: Tokens of the calibration text.
    """
    return 2.0 * parameters * (STATISTICS_PASSES * tokens + width)
