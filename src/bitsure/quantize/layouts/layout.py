"""The interface of a checkpoint layout."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.weights import IntegerWeight, Weight


class Layout(ABC):
    """How a kind of checkpoint stores quantized weights."""

    quant_method: ClassVar[str]
    """What the checkpoint's settings call it."""
    published_names: ClassVar[bool] = False
    """Whether the programs that load it want a mixture's tensors by the names of its own files, not of separate experts."""

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

    def leaves_out(self, layer: str, settings: Mapping[str, Any]) -> bool:
        """Return whether the settings say that a layer of the model's blocks is not quantized."""
        return False


class ExportLayout(Layout):
    """A published layout that other programs load, and that weights are exported in."""

    only_linear: ClassVar[bool]
    """Whether these programs load it into nn.Linear alone: no subclass of it, as Falcon's, and no Conv1D, as GPT-2's."""

    @abstractmethod
    def put(
        self, weights: Mapping[str, IntegerWeight], unquantized: Sequence[str]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors and the settings of a checkpoint, which `take` reads as the same weights.

        Args:
            weights: Layer name → weight, of whose groups each but the last has the same number of columns.
            unquantized: The model's other linear layers.

        Returns:
            Tensors by full name, and what config.json has as `quantization_config`.

        Raises:
            UserError: If the layout, or the programs that load it, have no room for a weight; its layer is named.
        """


def layers_with(tensors: Mapping[str, torch.Tensor], suffix: str) -> list[str]:
    """Return the layers that have a tensor with a suffix."""
    return [key.removesuffix(suffix) for key in tensors if key.endswith(suffix)]


def matches(pattern: str, layer: str) -> bool:
    """Return whether a layer's name begins as a regular expression says. Raises UserError if it is none."""
    try:
        return re.match(pattern, layer) is not None
    except re.error as error:
        raise UserError(
            f"The checkpoint's settings name layers by {pattern}, which is no regular expression: {error}."
        ) from error


def mentioned(names: Iterable[str] | None, layer: str) -> bool:
    """Return whether a list of modules that were not converted has a part of a layer's name, as AutoAWQ reads such lists."""
    return any(name in layer for name in names or ())


def dynamic_settings(layer: str, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what gptqmodel's `dynamic` changes in the settings for a layer; None if the layer is not quantized.

    The first pattern that matches counts. `-:` before it means that the layer is left out; `+:` or nothing, that it has the
    pattern's settings.
    """
    for pattern, changes in (settings.get("dynamic") or {}).items():
        if matches(pattern.removeprefix("-:").removeprefix("+:"), layer):
            return None if pattern.startswith("-:") else dict(changes)
    return {}


def layer_settings(layer: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's settings with what `dynamic` changes in them for a layer."""
    return {**settings, **(dynamic_settings(layer, settings) or {})}
