"""Old names of the functions in the modules beside this one, until every caller uses the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bitsure.quantize.layouts.known import LAYOUTS, layout_of, read_settings
from bitsure.quantize.weights import Weight

__all__ = ["layer_of", "read_settings", "take"]


def take(tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> Mapping[str, Weight]:
    """Remove a checkpoint's weights."""
    return layout_of(settings, where).take(tensors, settings, where)


def layer_of(key: str) -> str | None:
    """Return a tensor's layer."""
    return next((layer for layout in LAYOUTS if (layer := layout.layer_of(key))), None)
