"""The base classes of our own quantizers; `chain` does their work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bitsure.base.errors import UserError
from bitsure.config.model import ModelSettings
from bitsure.config.number_formats import Activations
from bitsure.config.quantizers import REWRITING, Chain, Rounded, Tuning
from bitsure.quantize.quantizer import QuantizationTarget, Quantizer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.models.locate import Source
    from bitsure.quantize.weights import ElementWeight, IntegerWeight

INPUT_SCALING = 2  # one more whenever calibration would scale inputs otherwise: see FORMAT in plan.py


@dataclass
class ChainQuantizer(Chain, Quantizer):
    """Transforms, then number formats of weights, activations, keys and values."""

    @property
    def weight_rounding(self) -> RoundingQuantizer | None:
        """How weights are rounded; None where they are kept."""
        return None

    @property
    def block_tuning(self) -> Tuning | None:
        """How each block is tuned before its weights are rounded; None where it is not."""
        return None

    def libraries(self) -> tuple[str, ...]:
        """Return torch; with data, transformers as well, because the model runs."""
        return ("torch", "transformers") if self.needs_data else ("torch",)

    def check_model_settings(self, model: ModelSettings) -> None:
        """Raise UserError if a transform rewrites weights that `model.device_map` leaves on disk."""
        rewriting = [transform for transform in self.transforms if transform in REWRITING]
        if rewriting and model.device_map is not None:
            raise UserError(
                f"model.device_map: {rewriting[0]} rewrites weights in memory, not those it leaves on disk. Leave one out."
            )

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError if the model's keys and values cannot be rounded in this format, or the model not be rotated."""
        if self.kv is not None:
            from bitsure.quantize.inference.keys_values import check_keys_and_values

            check_keys_and_values(self.kv, target.modules)
        if self.rotation is not None and target.has_experts:
            raise UserError(
                f"quant.transforms=[rotate]: {target.source.name} is a mixture of experts, whose gates read the hidden "
                "states as they are. Leave rotate out."
            )
        if self.rotation is not None:
            from bitsure.quantize.rotating.places import find_rotations

            find_rotations(target.modules, self.rotation)

    def identity(self, checkpoint: Source | None) -> dict[str, Any]:
        """Return the settings, and where inputs are scaled before they are rounded, how calibration does that."""
        scaled = self.activations is not None and {"smooth", "scale"} & set(self.transforms)
        return super().identity(checkpoint) | ({"input_scaling": INPUT_SCALING} if scaled else {})

    @property
    def changes_model(self) -> bool:
        """Whether the model is rotated, or data is used: then each block reads what the quantized ones before it compute."""
        return self.needs_data or self.rotation is not None

    @property
    def copies_model(self) -> bool:
        """Whether rotations are learned."""
        return self.rotation is not None and self.rotation.steps > 0

    @property
    def works_by_block(self) -> bool:
        """Whether no transform rewrites weights of several blocks, or for the proof, too."""
        return not set(self.transforms).intersection(REWRITING)

    @property
    def rounded_activations(self) -> Activations | None:
        """The number format of the layers' inputs."""
        return self.activations


@dataclass
class RoundingQuantizer(ChainQuantizer, Rounded):
    """A chain that rounds weights."""

    @property
    def weight_rounding(self) -> RoundingQuantizer:
        """Itself."""
        return self

    _layer_bits: ClassVar[Mapping[str, int]] = {}
    """Layer → bits of its own, as `with_layer_bits` sets them."""

    def with_bits(self, bits: int) -> RoundingQuantizer | None:
        """Return the same quantizer with other bits; None unless integers are rounded, and weights alone, as they are."""
        if self.format != "int" or self.activations or self.kv or self.rotation or self.block_tuning:
            return None
        return replace(self, bits=bits)

    def with_layer_bits(self, bits: Mapping[str, int]) -> Self:
        """Return the same quantizer, in which layers, by full name, have bits of their own."""
        quantizer = replace(self)
        vars(quantizer)["_layer_bits"] = bits
        return quantizer

    def of_layer(self, name: str) -> RoundingQuantizer:
        """Return what rounds a layer, by full name."""
        bits = self._layer_bits.get(name, self.bits)
        return self if bits == self.bits else replace(self, bits=bits)

    def bits_of(self, rows: int, width: int) -> int:
        """Return the bits that a layer's integers take with their scales and zero points, as `storage_bits` counts them."""
        from bitsure.quantize.weights.grid import group_index

        assert self.bits is not None, "only integers have bits of their own"
        group_of = group_index(width, self)
        groups = 1 if self.group_size == 0 else rows * (int(group_of[-1]) + 1)
        input_scales = 16 * width if "scale" in self.transforms else 0
        return rows * len(group_of) * self.bits + groups * (16 + self.bits) + input_scales

    @abstractmethod
    def round_weight(
        self, weight: torch.Tensor, hessian: torch.Tensor, shrink: tuple[torch.Tensor, ...], names: str
    ) -> IntegerWeight | ElementWeight:
        """Round the rows of layers that read the same input.

        Args:
            weight: Shape (out, in), float32.
            hessian: The mean of x xᵀ over calibration inputs, shape (in, in).
            shrink: How much each group's range is narrowed: none, one or two tensors of shape (out, groups).
            names: The layers, for messages.
        """

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of packed codes with float16 scales, twice: blocks are written one by one before the whole."""
        from bitsure.quantize.checkpoint import disk_space

        return 2 * disk_space.packed_bytes(modules, self.bits or 0, self.group_size or 0, 2 + (self.bits or 0) / 8)
