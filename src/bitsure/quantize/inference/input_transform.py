"""What becomes of a layer's input before its weight reads it: rotated, divided, reassembled, multiplied, rounded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitsure.config.number_formats import AtRunTime
from bitsure.quantize.inference.orthogonal import Orthogonal
from bitsure.quantize.inference.reassembly import Reassembly
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.weights.fake_quantize import fake_quantize


@dataclass(frozen=True)
class InputTransform:
    """What a layer's input x becomes before its weight reads it: Q(R(x · rotation / divisor) · factor), and R's last step."""

    factor: torch.Tensor | None = None
    """Shape (in,)."""
    numbers: AtRunTime | None = None
    """The number format of Q; None: no rounding."""
    static_range: torch.Tensor | None = None
    """(low, high), shape (2,), of Q where one scale is fixed for the whole tensor."""
    divisor: torch.Tensor | None = None
    """Shape (in,)."""
    reassembly: Reassembly | None = None
    """R."""
    rotation: Orthogonal | None = None
    """Rotates the input's channels."""

    def same_as(self, other: InputTransform) -> bool:
        """Return whether two transforms do the same, tensors compared by their values."""
        tensors = all(_equal(getattr(self, key), getattr(other, key)) for key in ("factor", "static_range", "divisor"))
        objects = self.reassembly is other.reassembly and self.rotation is other.rotation
        return tensors and objects and self.numbers == other.numbers

    def on(self, device: torch.device) -> InputTransform:
        """Return the same with tensors on a device; unchanged on meta, where accelerate brings weights when they are needed.

        What is elsewhere than the inputs is copied to them in every batch, and a GPU is waited for.
        """
        if device.type == "meta":
            return self
        return InputTransform(
            None if self.factor is None else self.factor.to(device),
            self.numbers,
            None if self.static_range is None else self.static_range.to(device),
            None if self.divisor is None else self.divisor.to(device),
            None if self.reassembly is None else self.reassembly.on(device),
            None if self.rotation is None else self.rotation.on(device),
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the transformed input, of the shape (…, in) and the type of x."""
        x = self.before_rounding(x)
        if self.numbers is not None:
            x = fake_quantize(x, self.numbers, self.static_range)
        return x if self.reassembly is None else self.reassembly.after_rounding(x)

    def before_rounding(self, x: torch.Tensor) -> torch.Tensor:
        """Return what Q rounds, of the shape (…, in) and the type of x."""
        if self.rotation is not None:
            x = self.rotation(x)
        if self.divisor is not None:
            x = (x / self.divisor.to(x.device)).to(x.dtype)
        if self.reassembly is not None:
            x = self.reassembly.inputs(x)
        if self.factor is not None:
            x = (x * self.factor.to(x.device)).to(x.dtype)
        return x


def scheme_transform(scheme: InferenceScheme, layer: str, factor: torch.Tensor | None) -> InputTransform | None:
    """Return what a scheme does to a layer's input; None if it does nothing."""
    divisor = next((each.scales for each in scheme.divisions if each.source is None and layer in each.layers), None)
    transform = InputTransform(
        factor,
        scheme.activations,
        scheme.static_ranges.get(layer),
        divisor,
        scheme.reassembly_of(layer),
        scheme.rotations.input_rotation(layer),
    )
    return transform if any(value is not None for value in vars(transform).values()) else None


def _equal(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    return first is second or (first is not None and second is not None and torch.equal(first, second))
