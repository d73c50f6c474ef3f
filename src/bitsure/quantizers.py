"""The settings of every quantizer: transforms → number format → rounding, or a library's own; Hydra fills them from conf/quant.

No torch here: composing a config must stay quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from bitsure.errors import UserError, one_of


@dataclass
class Quant:
    """The quantizer; each has a class of its own below."""

    needs_data = False  # text to quantize with; what was done is measured on text in any case


@dataclass
class NoQuant(Quant):
    """Full precision."""

    @property
    def name(self) -> str:
        return "none"


@dataclass
class Integers(Quant):
    """Weights as integers with a scale (and zero point, unless symmetric) for each group: transforms, then rounding."""

    bits: int = MISSING
    group_size: int = MISSING  # −1: the whole row; 0: the whole tensor
    symmetric: bool = MISSING
    remainder: str = "shorten"  # what happens to a width that the group does not divide: shorten | pad | row
    transforms: list[str] = field(default_factory=list)  # before rounding, by calibration text: scale, clip
    true_sequential: bool = True  # a block's layers see what those before them became

    def __post_init__(self) -> None:
        one_of("quant.bits", self.bits, range(2, 9))
        if self.group_size < -1:
            raise UserError(
                f"quant.group_size={self.group_size}: a positive number of weights, -1 for a whole row, 0 for a whole tensor."
            )
        one_of("quant.remainder", self.remainder, ("shorten", "pad", "row"))
        for transform in self.transforms:
            one_of("quant.transforms", transform, ("scale", "clip"))
        if list(self.transforms) not in ([], ["scale"], ["clip"], ["scale", "clip"]):
            raise UserError(f"quant.transforms={list(self.transforms)}: each once, scale before clip.")
        if self.group_size == 0 and "clip" in self.transforms:
            raise UserError("quant.transforms=[clip] narrows groups: quant.group_size=0 has none. Give a group size or -1.")

    @property
    def name(self) -> str:
        ahead = "+".join(self.transforms).replace("scale+clip", "awq")
        label = "+".join(filter(None, [ahead, self.rounding])).replace("awq+rtn", "awq")
        at_once = "" if self.true_sequential or not self.needs_data else "-parallel"
        return f"{label}{self.bits}" + _suffix(self.group_size, self.symmetric, self.remainder) + at_once


@dataclass
class Rtn(Integers):
    """Round to nearest."""

    rounding = "rtn"

    @property
    def needs_data(self) -> bool:
        return bool(self.transforms)


@dataclass
class Gptq(Integers):
    """GPTQ (Frantar et al. 2023)."""

    rounding = "gptq"
    needs_data = True

    backend: str = MISSING  # gptqmodel: the packed format that people deploy; native: our own; auto_gptq: the study's library
    desc_act: bool = MISSING  # act-order
    damp_percent: float = MISSING  # a fraction of the Hessian's mean diagonal

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("quant.backend", self.backend, ("gptqmodel", "native", "auto_gptq"))
        if not 0 < self.damp_percent < 1:
            raise UserError(f"quant.damp_percent={self.damp_percent}: a fraction between 0 and 1, such as 0.01.")
        if self.desc_act and "clip" in self.transforms:
            raise UserError(
                "quant.desc_act=true makes groups in another order than quant.transforms=[clip] narrows them in: leave one out."
            )
        if self.backend == "native":
            return
        one_of(f"quant.bits ({self.backend}; quant.backend=native has 2 to 8)", self.bits, (2, 3, 4, 8))
        one_of(f"quant.group_size ({self.backend})", self.group_size, (-1, 16, 32, 64, 128, 256, 512, 1024))
        if self.transforms or self.remainder != "shorten":
            raise UserError(
                f"quant.transforms={list(self.transforms)}, quant.remainder={self.remainder}: {self.backend} knows "
                f"no transforms and only shortens the last group. Add quant.backend=native."
            )

    @property
    def name(self) -> str:
        library = "" if self.backend == "gptqmodel" else f"-{self.backend.replace('_', '')}"
        return super().name + ("-actorder" if self.desc_act else "") + library


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

    @property
    def name(self) -> str:
        return f"noise-{self.like.name}-{self.seed}"

    @property
    def needs_data(self) -> bool:
        return self.like.needs_data


def _suffix(group_size: int, symmetric: bool, remainder: str) -> str:
    """What differs from the presets' group of 128, symmetric, shortened where it does not fit."""
    group = {128: "", -1: "-row", 0: "-tensor"}.get(group_size, f"-g{group_size}")
    return group + ("" if symmetric else "-asym") + ("" if remainder == "shorten" else f"-{remainder}")
