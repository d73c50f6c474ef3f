"""A model's modules as quantizers see them, without weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.models.load import empty_model

if TYPE_CHECKING:
    from torch import nn


def empty_modules(path: Path, trust_remote_code: bool = False) -> nn.Module:
    """Return `empty_model` with a mixture's experts one by one."""
    from bitsure.quantize.walk.mixtures import separate_experts

    model = empty_model(path, trust_remote_code)
    separate_experts(model)
    return model
