"""The noise control: Gaussian noise on the weights, as large in each layer's output as a quantizer's error.

An effect that the quantized model has and this one has not does not follow from the size of the error alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from bitsure.base.errors import UserError
from bitsure.config.model import ModelSettings
from bitsure.config.quantizers import QuantizerSettings
from bitsure.models.locate import Source
from bitsure.quantize.quantizer import QuantizationJob, Quantizer, as_quantizer

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)


@dataclass
class Noise(Quantizer):
    """Gaussian noise on the weights, as large in each layer's output as the error of the quantizer `like`, times `scale`."""

    like: QuantizerSettings = MISSING
    seed: int = 0
    scale: float = 1.0  # the noise's output error ÷ the quantizer's

    def __post_init__(self) -> None:
        """Raise UserError if there is no error to match."""
        if not self.scale > 0:
            raise UserError(f"quant.scale={self.scale}: a number above 0; 1 is noise of the quantizer's own output error.")
        quantizer = as_quantizer(self.like)
        if not quantizer.has_noise_control:
            raise UserError(f"quant.like={self.like.name}: noise is matched to a quantizer, such as quant@quant.like=gptq4.")
        if not quantizer.changes_outputs:
            raise UserError(
                f"quant.like={self.like.name}: noise is put on weights, as large as the error in layers' outputs, and keys and "
                "values alone leave none there."
            )

    @property
    def name(self) -> str:
        """The quantizer, the scale unless it is 1, and the seed."""
        scale = "" if self.scale == 1 else f"{self.scale:g}x-"
        return f"noise-{scale}{self.like.name}-{self.seed}"

    @property
    def needs_data(self) -> bool:
        """Whether the quantizer takes calibration text: both are given the same."""
        return self.like.needs_data

    @property
    def has_noise_control(self) -> bool:
        """False: it is the noise control."""
        return False

    @property
    def has_codes(self) -> bool:
        """False: numbers stay floating-point numbers."""
        return False

    @property
    def changes_model(self) -> bool:
        """False: noise is added to copies."""
        return False

    @property
    def matched_quantizer(self) -> Quantizer:
        """The quantizer whose output error is matched."""
        return as_quantizer(self.like)

    @property
    def checkpoint_settings(self) -> ModelSettings | None:
        """The checkpoint that the matched quantizer reads."""
        return self.matched_quantizer.checkpoint_settings

    def check_model_settings(self, model: ModelSettings) -> None:
        """Raise UserError if `model.device_map` leaves weights on disk."""
        if model.device_map is not None:
            raise UserError(
                "model.device_map: noise is added to weights in memory, not to those it leaves on disk. Leave one out."
            )

    def identity(self, checkpoint: Source | None) -> dict[str, Any]:
        """Return the method, the seed and the scale unless it is 1; the plan adds the identity of the matched quantizer."""
        scale = {} if self.scale == 1 else {"scale": self.scale}
        return {"method": "noise", "like": None, "seed": self.seed, **scale}

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of the matched quantizer; noise itself needs a scale for each layer."""
        return self.matched_quantizer.bytes_needed(modules, dtype)

    def quantize(self, job: QuantizationJob) -> None:
        """Match each layer's scale and write it, with the seed."""
        from bitsure.quantize.layouts import seeded_noise

        if job.matched is None:
            raise ValueError("noise has to be given the proof of the quantizer that it is matched to")
        errors = {name: self.scale * layer.output_error for name, layer in job.matched.layers.items()}
        if not any(errors.values()):
            raise UserError(f"quant.like={self.like.name} changes no layer's output, so that there is no error to match.")
        outside = [name for name in job.matched.modules_quantized if name not in errors]
        if outside and self.seed == 0:  # Once is enough for all seeds of a control.
            log.warning("%s is quantized too, but the noise control keeps its weights", ", ".join(outside))
        seeded_noise.write(job.directory, match_scales(job.model, errors, job.held_out, self.seed), self.seed)


def match_scales(model: nn.Module, output_errors: dict[str, float], held_out: torch.Tensor, seed: int) -> dict[str, float]:
    """Return the standard deviation of each layer's noise that gives the output error of a quantizer.

    The output error is proportional to the scale but for the rounding of the model's type, so that a second
    measurement is all the search that is needed.

    Args:
        model: The full-precision model.
        output_errors: Layer → the quantizer's relative output error on the same text.
        held_out: Token ids, shape (windows, seqlen).
        seed: Draws the noise.
    """
    from bitsure.quantize.layouts.seeded_noise import noisy_weight
    from bitsure.quantize.proof.output_errors import output_errors as measure
    from bitsure.quantize.walk.targets import block_linears

    scales = dict.fromkeys(block_linears(model), 1.0)
    for _ in range(2):
        measured = measure(model, lambda name, layer: noisy_weight(name, layer, scales[name], seed), held_out)  # noqa: B023 - used here
        scales = {
            name: scale * output_errors[name] / measured[name].whole if measured[name].whole else 0.0
            for name, scale in scales.items()
        }
    return scales
