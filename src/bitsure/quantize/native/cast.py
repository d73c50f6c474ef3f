"""Half precision as a quantizer: every tensor of a model is rounded to a floating-point type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from bitsure.base.errors import UserError, one_of
from bitsure.models.weight_files import stored_types
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget, Quantizer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.weights import DenseWeight

HOLDS = {"float32": {"F32", "BF16", "F16"}, "bfloat16": {"BF16"}, "float16": {"F16"}}  # exactly; safetensors' names


@dataclass
class Cast(Quantizer):
    """Round every tensor to a floating-point type; the model then computes in model.dtype."""

    dtype: str = MISSING

    def __post_init__(self) -> None:
        """Raise UserError if the type is none of these."""
        one_of("quant.dtype", self.dtype, ("float32", "bfloat16", "float16"))

    @property
    def name(self) -> str:
        """The type."""
        return self.dtype

    @property
    def quantizes_whole_model(self) -> bool:
        """True: embeddings and norms are rounded too."""
        return True

    @property
    def has_integer_weights(self) -> bool:
        """False: numbers stay floating-point numbers."""
        return False

    @property
    def changes_model(self) -> bool:
        """False: tensors are copied."""
        return False

    @property
    def has_codes(self) -> bool:
        """False: numbers stay floating-point numbers."""
        return False

    def libraries(self) -> tuple[str, ...]:
        """Return torch."""
        return ("torch",)

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of all parameters in the type."""
        from bitsure.quantize.checkpoint import disk_space

        return sum(parameter.numel() for parameter in modules.parameters()) * disk_space.item_bytes(self.dtype)

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError if the cast would change nothing, by the files' headers and the settings."""
        hint = "The cast would change nothing. quant=none scores the checkpoint as it is."
        stored = set(stored_types(target.source.path))
        if stored and stored <= HOLDS[self.dtype]:
            types = ", ".join(sorted(stored))
            raise UserError(f"quant={self.name}: the model is stored as {types}, which {self.dtype} holds exactly. {hint}")
        if target.dtype != "float32":
            raise UserError(
                f"quant={self.name}: the full-precision model is already rounded to {target.dtype}, the type that it is "
                f"computed in (model.dtype), so that the cast changes nothing. model.dtype=float32 shows what the cast does."
            )

    def quantize(self, job: QuantizationJob) -> None:
        """Write every floating-point tensor in the type."""
        from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint

        write_checkpoint(job.directory, *cast(job.model, self))


def cast(model: nn.Module, quant: Cast) -> tuple[dict[str, DenseWeight], dict[str, torch.Tensor]]:
    """Return the layers' weights, and all other floating-point tensors, in the type; a tied tensor has one of its names."""
    import torch

    from bitsure.quantize.walk.targets import block_linears, matrix
    from bitsure.quantize.weights import DenseWeight

    dtype = getattr(torch, quant.dtype)
    layers = block_linears(model)
    weights = {name: DenseWeight(matrix(layer).detach().to(dtype)) for name, layer in layers.items()}
    others, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if name.removesuffix(".weight") not in layers and tensor.is_floating_point() and tensor.data_ptr() not in seen:
            others[name] = tensor.to(dtype)
            seen.add(tensor.data_ptr())
    return weights, others
