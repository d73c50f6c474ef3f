"""Number formats and their settings, the same for weights, activations, and keys and values. No torch here: configs load it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bitsure.base.errors import UserError, one_of

T = TypeVar("T")

MX_BLOCK = 32  # OCP Microscaling Formats (MX) v1.0, section 5.1
NVFP4_BLOCK = 16


@dataclass(frozen=True)
class Element:
    """A small format: ±2^e · (1 + m/2^mantissa_bits) down to the exponent e_min, evenly spaced below it, up to `largest`."""

    bits: int
    mantissa_bits: int
    e_min: int  # of the smallest normal number
    largest: float  # finite; larger values become it
    integers: bool = False  # spaced evenly throughout

    @property
    def e_max(self) -> int:
        """The exponent of the largest number."""
        exponent = self.e_min
        while 2.0 ** (exponent + 1) <= self.largest:
            exponent += 1
        return exponent


E4M3, E5M2 = Element(8, 3, -6, 448.0), Element(8, 2, -14, 57344.0)
# Table 1 of the MX specification, and INT4 by analogy with INT8. Integers do not use their lowest code, which it permits.
MX = {
    "mxint8": Element(8, 6, 0, 127 / 64, integers=True),
    "mxint4": Element(4, 2, 0, 7 / 4, integers=True),
    "mxfp8_e4m3": E4M3,
    "mxfp8_e5m2": E5M2,
    "mxfp6_e2m3": Element(6, 3, 0, 7.5),
    "mxfp6_e3m2": Element(6, 2, -2, 28.0),
    "mxfp4": Element(4, 1, 0, 6.0),
}
# Scales are numbers of FP8 (E4M3), times one float32 for the tensor: NVIDIA's NVFP4, and integers of 4 bits.
FP8_SCALED = {"nvfp4": MX["mxfp4"], "int4_fp8": MX["mxint4"]}
ELEMENTS = MX | {"fp8_e4m3": E4M3, "fp8_e5m2": E5M2} | FP8_SCALED
BLOCKS = dict.fromkeys(MX, MX_BLOCK) | {"nvfp4": NVFP4_BLOCK}  # format → the group size that it prescribes
BYTE_SCALES = (*MX, *FP8_SCALED)  # formats whose scales take 8 bits
FORMATS = ("int", *ELEMENTS)
_SHARED: dict[int | None, str] = {-1: "one scale a token", 0: "one scale"}


@dataclass
class Numbers:
    """A number format with its scales. For formats other than int, null takes the format's own value."""

    bits: int | None = None  # of a number, in integer formats
    group_size: int | None = None  # values that share a scale; −1: a whole row (of weights), token or head; 0: a whole tensor
    symmetric: bool | None = None  # whether there are no zero points
    # int, or mxint8 mxint4 mxfp8_e4m3 mxfp8_e5m2 mxfp6_e2m3 mxfp6_e3m2 mxfp4 nvfp4 int4_fp8 fp8_e4m3 fp8_e5m2
    format: str = "int"

    SECTION = "quant"  # of the config, for messages

    def __post_init__(self) -> None:
        one_of(f"{self.SECTION}.format", self.format, FORMATS)
        if self.format == "int":
            self._need("bits", self.bits, ", ".join(map(str, self.widths)))
            self._need("group_size", self.group_size, "the values that share a scale, or -1")
            self._need("symmetric", self.symmetric, "true or false")
            self._check_bits()
        else:
            self.bits = self._fixed("bits", self.bits, ELEMENTS[self.format].bits)
            self.symmetric = self._fixed("symmetric", self.symmetric, True)
            if self.format in BLOCKS:
                self.group_size = self._fixed("group_size", self.group_size, BLOCKS[self.format])
            elif self.group_size is None:
                self.group_size = -1
        if self.group_size is not None and self.group_size < -1:
            raise UserError(
                f"{self.SECTION}.group_size={self.group_size}: a positive number of values, -1 for a whole row, "
                f"0 for a whole tensor."
            )

    @property
    def widths(self) -> Sequence[int]:
        """The bits that integers may have."""
        return range(2, 9)

    def _check_bits(self) -> None:
        one_of(f"{self.SECTION}.bits", self.bits, self.widths)

    def _need(self, key: str, given: object, allowed: str) -> None:
        if given is None:
            raise UserError(f"{self.SECTION}.{key}=null: {self.SECTION}.format=int needs one: {allowed}.")

    def _fixed(self, key: str, given: T | None, own: T) -> T:
        if given not in (None, own):
            raise UserError(
                f"{self.SECTION}.{key}={given}: {self.SECTION}.format={self.format} has {own}. Give {self.SECTION}.{key}=null."
            )
        return own

    @property
    def label(self) -> str:
        """The format in a quantizer's name."""
        return str(self.bits) if self.format == "int" else f"-{self.format}"

    @property
    def levels(self) -> int:
        """The highest code of integers, 2^bits − 1."""
        assert self.bits is not None, f"{self.SECTION}: nothing is rounded"
        return int(2**self.bits - 1)

    @property
    def usual_group(self) -> int:
        """The group size that is not part of a quantizer's name."""
        return BLOCKS.get(self.format, -1)


@dataclass
class AtRunTime(Numbers):
    """The number format of values that are rounded while the model runs.

    Integers are asymmetric with one scale a row unless other settings are given. Format int without bits rounds nothing.
    """

    @property
    def off(self) -> bool:
        """Whether nothing is rounded."""
        return self.format == "int" and self.bits is None

    def __post_init__(self) -> None:
        if self.off:
            if given := [key for key in ("group_size", "symmetric") if getattr(self, key) is not None]:
                raise UserError(f"{self.SECTION}.{given[0]}={getattr(self, given[0])}: give {self.SECTION}.bits too.")
            return
        if self.format == "int":
            self.group_size = -1 if self.group_size is None else self.group_size
            self.symmetric = bool(self.symmetric)
        super().__post_init__()


@dataclass
class Activations(AtRunTime):
    """The inputs of the blocks' linear layers.

    Each token (or group of its values) has scales of its own, computed while the model runs; group_size 0 is one scale for
    the whole tensor, fixed beforehand by the range on the calibration text.
    """

    SECTION = "quant.activations"

    @property
    def static(self) -> bool:
        """Whether one scale serves the whole tensor, determined before the model runs."""
        return self.group_size == 0

    @property
    def description(self) -> str:
        """The format in words, such as `int8, symmetric, one scale a token`."""
        shared = _SHARED.get(self.group_size, f"one scale for {self.group_size} values")
        if self.format != "int":
            return f"{self.format}, {shared}"
        return f"int{self.bits}, {'symmetric' if self.symmetric else 'asymmetric'}, {shared}"


@dataclass
class KeysValues(AtRunTime):
    """Keys (after their rotary embedding) and values, each token's and head's by itself, before attention reads them."""

    SECTION = "quant.kv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size == 0:
            raise UserError(
                "quant.kv.group_size=0: keys and values have scales of their own for each token and head. "
                "Give -1 for one a head, or a number that divides its width."
            )
