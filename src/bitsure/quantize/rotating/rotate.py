"""Rotating a model before anything of it is rounded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bitsure.config.rotation_settings import RotationSettings
from bitsure.quantize.inference.rotations import Rotations
from bitsure.quantize.rotating.exactness import check_exact
from bitsure.quantize.rotating.places import find_rotations


@torch.no_grad()
def rotate(model: nn.Module, settings: RotationSettings, learn: Callable[[Rotations], Rotations] | None = None) -> Rotations:
    """Rotate a full-precision model in place and return its rotations.

    Args:
        model: The model.
        settings: Which rotations.
        learn: Returns better ones than the random ones that it is given; None: these are taken.

    Raises:
        UserError: If the model has no place for a rotation, or one changes what it computes.
    """
    rotations = find_rotations(model, settings)
    if learn is not None:
        rotations = learn(rotations)
    check_exact(model, rotations)
    rotations.apply(model)
    return rotations
