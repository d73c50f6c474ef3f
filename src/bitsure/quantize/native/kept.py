"""Weights as they are: activations, keys and values alone are rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.config.quantizers import REWRITING
from bitsure.quantize.native.chain_quantizer import ChainQuantizer
from bitsure.quantize.quantizer import QuantizationJob

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Kept(ChainQuantizer):
    """Weights as they are: activations, keys and values alone are rounded."""

    def __post_init__(self) -> None:
        """Raise UserError if nothing would be rounded, or a transform is for weights."""
        super().__post_init__()
        if self.activations is None and self.kv is None:
            raise UserError("quant.activations=null quant.kv=null: nothing would be quantized. quant=none is full precision.")
        if others := [transform for transform in self.transforms if transform not in REWRITING]:
            raise UserError(
                f"quant.transforms=[{others[0]}] is for weights that are rounded, and here they are kept. Leave it out."
            )

    @property
    def name(self) -> str:
        """Transforms and formats, such as `smooth-a8-kv4`."""
        return "-".join(filter(None, [self._transforms_label, self._inference_label.removeprefix("-")]))

    @property
    def changes_outputs(self) -> bool:
        """Whether activations are rounded; keys and values alone leave the layers' outputs as they are."""
        return self.activations is not None

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of a scale for each input channel, which is the most."""
        from bitsure.quantize.walk.targets import block_linears, matrix

        shapes = [matrix(layer).shape for layer in block_linears(modules).values()]
        return len(shapes) * 4 * max(width for _, width in shapes)

    def quantize(self, job: QuantizationJob) -> None:
        """Determine scales and ranges block by block, and write them."""
        from bitsure.quantize.native import chain

        chain.quantize(job.model, self, job.windows, job.parts, job.directory, job.advance)
