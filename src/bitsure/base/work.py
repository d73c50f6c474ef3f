"""What a piece of work took, kept beside its result in the store, and how much arithmetic such work is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base.files import write_text

if TYPE_CHECKING:
    from torch import nn

COST = "cost.json"  # of a store's entry: {"what", "seconds", "work"}, and of records "questions", "tokens" and peaks of memory
STATISTICS = 4  # passes over the calibration text: two through each block, and the sums of its inputs


def write_cost(entry: Path, what: str, seconds: float, work: float, **more: float | None) -> None:
    """Keep what a piece of work took, for the estimates of others. work: floating-point operations by the formulas below."""
    write_text(entry / COST, json.dumps({"what": what, "seconds": round(seconds, 3), "work": work} | more))


def read_cost(entry: Path) -> dict | None:
    """What a piece of work took; None where that was not kept."""
    file = entry / COST
    return json.loads(file.read_text()) if file.is_file() else None


def scoring_work(parameters: int, tokens: int) -> float:
    """Floating-point operations of a forward pass, attention left out."""
    return 2.0 * parameters * tokens


def quantizing_work(parameters: int, width: int, tokens: int) -> float:
    """Floating-point operations of going through the blocks with calibration text and of a solver's columns."""
    return 2.0 * parameters * (STATISTICS * tokens + width)


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def width_of(model: nn.Module) -> int:
    return model.config.get_text_config().hidden_size
