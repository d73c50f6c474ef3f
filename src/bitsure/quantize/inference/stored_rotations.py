"""Rotations as they are written into a checkpoint: names as JSON, numbers as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from bitsure.quantize.inference.orthogonal import Orthogonal
from bitsure.quantize.inference.rotations import InputRotation, Rotations, StreamNorm, StreamRotation, ValueRotation


def to_stored(rotations: Rotations) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what is written of rotations: JSON that names tensors, and these."""
    tensors: dict[str, torch.Tensor] = {}

    def without_tensors(value: Any) -> Any:
        match value:
            case torch.Tensor():
                tensors[name := f"rotation.{len(tensors)}"] = value
                return name
            case dict():
                return {key: without_tensors(inner) for key, inner in value.items()}
            case list():
                return [without_tensors(inner) for inner in value]
        return value

    return without_tensors(asdict(rotations)), tensors


def from_stored(settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Rotations:
    """Return the rotations that `to_stored` wrote."""

    def orthogonal(parts: Mapping[str, str | None]) -> Orthogonal:
        return Orthogonal(**{key: tensors[name] for key, name in parts.items() if name is not None})

    stream, keys_and_values = settings["stream"], settings["keys_and_values"]
    if stream is not None:
        stream = StreamRotation(
            **stream | {"rotation": orthogonal(stream["rotation"]), "norms": [StreamNorm(**norm) for norm in stream["norms"]]}
        )
    return Rotations(
        stream,
        [
            ValueRotation(**each | {"rotation": orthogonal(each["rotation"]), "rows": tensors[each["rows"]]})
            for each in settings["values"]
        ],
        [InputRotation(orthogonal(each["rotation"]), each["layers"]) for each in settings["inputs"]],
        None if keys_and_values is None else orthogonal(keys_and_values),
        settings.get("learned_loss"),  # which the store has of no rotations from before they were learned
    )
