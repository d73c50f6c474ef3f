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
    """Tensors that are no quantized weight of a block: embeddings, norms, biases, and weights that the blocks keep."""
    scheme: InferenceScheme = field(default_factory=InferenceScheme)
    """What the model does while it runs."""

    unquantized: Mapping[str, str] = field(default_factory=dict)
    """Layer in the model's blocks that is not quantized → why."""
    bits_outside: Mapping[str, float] = field(default_factory=dict)
    """Layer outside the blocks that is quantized too, such as the head → bits that it takes; its weight is in `others`."""

    @property
    def weights_are_kept(self) -> bool:
        """Whether the checkpoint rounds only while the model runs."""
        return not self.weights and bool(self.scheme)
