"""What a quantized checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.weights import Weight


@dataclass(frozen=True)
class CheckpointContents:
    """A checkpoint's tensors, by their names in the model, and its inference scheme."""

    weights: Mapping[str, Weight]
    """Layer in the model's blocks → quantized weight; empty if the model keeps its weights."""
    others: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Tensors that are no layer's weight: embeddings, norms, biases."""
    scheme: InferenceScheme = field(default_factory=InferenceScheme)
    """What the model does while it runs."""

    @property
    def weights_are_kept(self) -> bool:
        """Whether the checkpoint rounds only while the model runs."""
        return not self.weights and bool(self.scheme)
