"""Our own layout: every weight format stores the tensors that it says, GPTQ's packed ones where they suffice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import isabstract
from pathlib import Path
from typing import Any

import torch

from bitsure.base.errors import UserError
from bitsure.quantize.layouts.layout import Layout, layer_settings, layers_with
from bitsure.quantize.weights import Weight


class OwnLayout(Layout):
    """The layout of checkpoints written here that GPTQ's has no room for."""

    quant_method = "bitsure"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The mark of every weight format that has been imported, a format of one's own too."""
        return tuple(f".{weight_format.suffix}" for weight_format in _formats(Weight.__subclasses__()))

    def take(self, tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], where: Path) -> Mapping[str, Weight]:
        """Remove the weights of every format; see `Layout.take`."""
        if (stored := settings.get("checkpoint_format")) != "bitsure":
            raise UserError(f"{where}: checkpoint_format={stored}; with quant_method=bitsure it is bitsure.")
        return {
            name: weight_format.from_tensors(name, tensors, layer_settings(name, settings))
            for weight_format in _formats(Weight.__subclasses__())
            for name in layers_with(tensors, f".{weight_format.suffix}")
        }

    def leaves_out(self, layer: str, settings: Mapping[str, Any]) -> bool:
        """Return True: a layer whose weights lie beside the quantized ones was left out on purpose."""
        return True


def _formats(classes: list[type[Weight]]) -> Iterator[type[Weight]]:
    for weight_format in classes:
        if not isabstract(weight_format):
            yield weight_format
        yield from _formats(weight_format.__subclasses__())
