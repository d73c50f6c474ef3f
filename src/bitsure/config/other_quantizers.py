"""The settings of quantizers that are no chain: casts, checkpoints and libraries of others, and noise, the control of them all.

No torch here: composing a config must stay quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from bitsure.base.errors import UserError, one_of
from bitsure.config.quantizers import Kept, NoQuant, Quant


@dataclass
class Cast(Quant):
    """Every tensor rounded to a floating-point type; what it then computes in is model.dtype."""

    dtype: str = MISSING

    def __post_init__(self) -> None:
        one_of("quant.dtype", self.dtype, ("float32", "bfloat16", "float16"))

    @property
    def name(self) -> str:
        return self.dtype


@dataclass
class Prequantized(Quant):
    """A checkpoint that others quantized from `model`: a directory (`path`) or a hub repository (`repo`)."""

    path: str | None = None
    repo: str | None = None
    revision: str = "main"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.repo is None):
            raise UserError(
                f"quant=prequantized: needs either quant.path (a directory) or quant.repo (a hub repository); "
                f"got path={self.path!r}, repo={self.repo!r}. Example: quant=prequantized quant.path=DIR"
            )

    @property
    def name(self) -> str:
        return Path(self.path or self.repo).name or "prequantized"


@dataclass
class Bnb(Quant):
    """bitsandbytes: 4-bit codebooks in blocks of 64 (QLoRA, Dettmers et al. 2023), or rows of int8 (LLM.int8(), 2022)."""

    type: str = MISSING  # nf4 | fp4 | int8
    double_quant: bool = False  # the blocks' scales in 8 bits, too

    def __post_init__(self) -> None:
        one_of("quant.type", self.type, ("nf4", "fp4", "int8"))
        if self.double_quant and self.type == "int8":
            raise UserError(
                "quant.double_quant=true: int8 has one scale a row and no blocks. Leave it out, or take nf4 or fp4."
            )

    @property
    def name(self) -> str:
        return f"bnb-{self.type}" + ("-double" if self.double_quant else "")


@dataclass
class Hqq(Quant):
    """HQQ (Badri & Shaji 2023): half-quadratic search for zero points, without data."""

    bits: int = MISSING
    group_size: int = MISSING  # −1: the whole row

    def __post_init__(self) -> None:
        one_of("quant.bits", self.bits, (2, 3, 4, 5, 6, 8))
        if self.group_size != -1 and (self.group_size < 8 or self.group_size % 8):
            raise UserError(f"quant.group_size={self.group_size}: hqq takes multiples of 8, and -1 for a whole row.")

    @property
    def name(self) -> str:
        return f"hqq{self.bits}" + {64: "", -1: "-row"}.get(self.group_size, f"-g{self.group_size}")


@dataclass
class Noise(Quant):
    """Gaussian noise on the weights, as large in each layer's output as what the quantizer `like` did: its control."""

    like: Quant = MISSING
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.like, (NoQuant, Noise)):
            raise UserError(f"quant.like={self.like.name}: noise is matched to a quantizer, such as quant@quant.like=gptq4.")
        if isinstance(self.like, Kept) and self.like.activations is None:
            raise UserError(
                f"quant.like={self.like.name}: noise is put on weights, as large as the error in layers' outputs, and keys and "
                "values alone leave none there."
            )

    @property
    def name(self) -> str:
        return f"noise-{self.like.name}-{self.seed}"

    @property
    def needs_data(self) -> bool:
        return self.like.needs_data
