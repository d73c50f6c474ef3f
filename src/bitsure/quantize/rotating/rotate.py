"""Rotating a model before anything of it is rounded."""

from __future__ import annotations

import torch
from torch import nn

from bitsure.config.quantizers import RotationSettings
from bitsure.quantize.inference.rotations import Rotations
from bitsure.quantize.rotating.exactness import check_exact
from bitsure.quantize.rotating.places import find_rotations


@torch.no_grad()
def rotate(model: nn.Module, settings: RotationSettings) -> Rotations:
    """Rotate a full-precision model in place and return its rotations.

    Raises:
        UserError: If the model has no place for a rotation, or one changes what it computes.
    """
    rotations = find_rotations(model, settings)
    check_exact(model, rotations)
    rotations.apply(model)
    return rotations
