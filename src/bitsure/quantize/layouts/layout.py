"""The interface of a checkpoint layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from bitsure.quantize.weights import Weight


class Layout(ABC):
    """How a kind of checkpoint stores quantized weights."""

    quant_method: ClassVar[str]
    """What the checkpoint's settings call it."""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """What the name of a tensor adds to its layer's name if the layer is quantized, such as `.qweight`."""

    @abstractmethod
    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> Mapping[str, Weight]:
        """Remove the quantized weights from a checkpoint's tensors and return them by layer name.

        Args:
            tensors: The checkpoint's tensors, by name; what belongs to no quantized layer is left in it.
            settings: The checkpoint's settings, as `known.read_settings` returns them.
            where: The checkpoint's directory, for messages.

        Raises:
            UserError: If the variant of the layout is not supported, or tensors contradict the settings.
        """

    def layer_of(self, key: str) -> str | None:
        """Return the quantized layer that a tensor's name belongs to; None for any other tensor."""
        return next((key.removesuffix(suffix) for suffix in self.suffixes if key.endswith(suffix)), None)


def layers_with(tensors: Mapping[str, torch.Tensor], suffix: str) -> list[str]:
    """Return the layers that have a tensor with a suffix."""
    return [key.removesuffix(suffix) for key in tensors if key.endswith(suffix)]
