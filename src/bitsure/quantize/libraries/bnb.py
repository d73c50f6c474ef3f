"""bitsandbytes's own functions: NF4, FP4 and the rows of LLM.int8()."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from bitsure.base import terminal
from bitsure.base.errors import UserError, one_of
from bitsure.models.locate import Source
from bitsure.quantize.quantizer import QuantizationJob, Quantizer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.weights import Weight

BLOCK = 64  # as in its own layers


@dataclass
class Bnb(Quantizer):
    """bitsandbytes: 4-bit codebooks in blocks of 64 (QLoRA, Dettmers et al. 2023), or rows of int8 (LLM.int8(), 2022)."""

    type: str = MISSING  # nf4 | fp4 | int8
    double_quant: bool = False  # quantize the blocks' scales to 8 bits

    def __post_init__(self) -> None:
        """Raise UserError for an unknown type, or a setting of blocks with int8, which has none."""
        one_of("quant.type", self.type, ("nf4", "fp4", "int8"))
        if self.double_quant and self.type == "int8":
            raise UserError(
                "quant.double_quant=true: int8 has one scale a row and no blocks. Leave it out, or take nf4 or fp4."
            )

    @property
    def name(self) -> str:
        """The type."""
        return f"bnb-{self.type}" + ("-double" if self.double_quant else "")

    @property
    def has_integer_weights(self) -> bool:
        """False: it has codebooks, or rows of another layout."""
        return False

    @property
    def changes_model(self) -> bool:
        """False."""
        return False

    def libraries(self) -> tuple[str, ...]:
        """Return torch and bitsandbytes."""
        return ("torch", "bitsandbytes")

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of codes and scales."""
        from bitsure.quantize.checkpoint import disk_space

        if self.type == "int8":
            return disk_space.packed_bytes(modules, 8, -1, 5)
        weights = disk_space.layer_numbers(modules)
        return weights // 2 + weights // BLOCK * 4

    def quantize(self, job: QuantizationJob) -> None:
        """Round every layer."""
        with terminal.output_to(job.log_file):
            job.write(quantize(job.model, self))

    def not_applied(self, checkpoint: Source | None) -> list[str]:
        """Return `activations` for LLM.int8(): they stay in full precision here."""
        return ["activations"] if self.type == "int8" else []


def quantize(model: nn.Module, quant: Bnb) -> dict[str, Weight]:
    """Return the model's layers as bitsandbytes rounds them, by name."""
    from bitsure.quantize.walk.targets import block_linears, matrix

    return {name: quantize_weight(matrix(layer), quant) for name, layer in block_linears(model).items()}


def quantize_weight(weight: torch.Tensor, quant: Bnb) -> Weight:
    """Return a weight (out, in) as Linear4bit and Linear8bitLt keep it; the latter rounds it to float16 first."""
    from bitsandbytes import functional

    from bitsure.quantize.layouts.bitsandbytes import from_rows
    from bitsure.quantize.weights import CodebookWeight

    weight = weight.detach().contiguous()
    if quant.type == "int8":
        codes, absmax, _ = functional.int8_vectorwise_quant(weight.half())
        return from_rows(codes, absmax)
    packed, state = functional.quantize_4bit(
        weight, blocksize=BLOCK, compress_statistics=quant.double_quant, quant_type=quant.type
    )
    tensors = {f"a.weight.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    return CodebookWeight.from_tensors("a", tensors | {"a.weight": packed}, {})
