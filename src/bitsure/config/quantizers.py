"""The settings that quantizers share: the base of all, and those of our own, transforms → number formats → rounding.

The classes of the quantizers themselves are in `bitsure.quantize`. No torch here: composing a config must stay quick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from bitsure.base.errors import UserError, at_least, one_of
from bitsure.config.number_formats import BLOCKS, Activations, KeysValues, Numbers
from bitsure.config.rotation_settings import RotationSettings
from bitsure.config.server_settings import ServerAddress

CLIPS = ("clip", "clip_asymmetric")
ACTIVATION_TRANSFORMS = ("smooth", "disassemble", "reassemble")
REWRITING = ("rotate", *ACTIVATION_TRANSFORMS)  # of weights before they are rounded or kept
TRANSFORMS = (*REWRITING, "scale", *CLIPS)  # in the order in which they are applied


@dataclass
class QuantizerSettings(ABC):
    """The settings of a quantizer, and the properties that other settings must agree with.

    `bitsure.quantize.Quantizer` adds the work; every quantizer derives from it.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The quantizer with its settings, short enough for a table's row, such as `gptq4-g32`."""

    @property
    def needs_data(self) -> bool:
        """Whether it quantizes with calibration text; its effect is measured on text in any case."""
        return False

    @property
    def is_full_precision(self) -> bool:
        """Whether it leaves the model as it is."""
        return False

    @property
    def has_noise_control(self) -> bool:
        """Whether noise with the same output error can be scored as its control (`control=noise`)."""
        return True

    @property
    def server(self) -> ServerAddress | None:
        """The server that runs the quantized model; None for one that is run here."""
        return None

    @property
    def run_time_setting(self) -> str | None:
        """The setting by which layers' inputs change while the model runs; None where weights alone do."""
        return None

    @property
    def has_integer_weights(self) -> bool:
        """Whether weights may be integers with a scale a group, which published layouts have room for."""
        return True

    @property
    def has_packed_kernels(self) -> bool:
        """Whether its checkpoints can be scored without unpacking the weights (`scoring.dequantize=false`)."""
        return False


@dataclass
class Chain(QuantizerSettings):
    """Transforms → number formats of weights, activations, keys and values → rounding: our own quantizers and GPTQ."""

    # before rounding: rotate, and by calibration text smooth, disassemble or reassemble, scale, clip or clip_asymmetric
    transforms: list[str] = field(default_factory=list)
    smooth_alpha: float = 0.5  # of smooth: 0 leaves all difficulty with the activations, 1 gives all of it to the weights
    expansion: float | None = None  # of disassemble and reassemble: copies of outlier channels ÷ channels; None: searched
    activations: Activations | None = None  # the inputs of the blocks' linear layers
    kv: KeysValues | None = None  # keys and values, each token's and head's by itself
    rotation: RotationSettings | None = None  # of rotate

    def __post_init__(self) -> None:
        """Raise UserError for settings that contradict each other."""
        self.activations = None if self.activations is None or self.activations.off else self.activations
        self.kv = None if self.kv is None or self.kv.off else self.kv
        for transform in self.transforms:
            one_of("quant.transforms", transform, TRANSFORMS)
        if list(self.transforms) != [transform for transform in TRANSFORMS if transform in self.transforms]:
            raise UserError(f"quant.transforms={list(self.transforms)}: each once, in the order {', '.join(TRANSFORMS)}.")
        self._check_rotation()
        if not 0 <= self.smooth_alpha <= 1:
            raise UserError(f"quant.smooth_alpha={self.smooth_alpha}: a number from 0 to 1.")
        self._check_disassembly()
        easier = [transform for transform in self.transforms if transform in ACTIVATION_TRANSFORMS]
        if easier and self.activations is None:
            raise UserError(
                f"quant.transforms=[{easier[0]}] makes activations easier to round and weights harder, and no activations are "
                f"rounded: give quant.activations.bits=8, or take [scale], which makes weights easier."
            )

    @property
    def run_time_setting(self) -> str | None:
        """The first of the settings that do."""
        given = {
            "quant.activations": self.activations is not None,
            "quant.kv": self.kv is not None,
            "quant.rotation.kinds=[r4]": self.rotation is not None and "r4" in self.rotation.kinds,
        }
        return next((setting for setting, is_given in given.items() if is_given), None)

    def _check_rotation(self) -> None:
        if "rotate" not in self.transforms:
            if self.rotation is not None:
                raise UserError(
                    "quant.rotation: nothing is rotated. Add rotate to quant.transforms, as its first, or leave it out."
                )
            return
        self.rotation = self.rotation or RotationSettings()
        if "r3" in self.rotation.kinds and self.kv is None:
            raise UserError(
                "quant.rotation.kinds: r3 rotates keys and values before they are rounded, and none are rounded. "
                "Give quant.kv.bits=4, or leave r3 out."
            )

    def _check_disassembly(self) -> None:
        apart = [transform for transform in self.transforms if transform in ("disassemble", "reassemble")]
        if len(apart) > 1:
            raise UserError("quant.transforms: disassemble takes channels apart, reassemble merges others for it: take one.")
        if self.expansion is not None and not (apart and 0 < self.expansion <= 1):
            raise UserError(
                f"quant.expansion={self.expansion}: copies of outlier channels as a share of all, above 0 and up to 1, with "
                f"quant.transforms=[disassemble] or [reassemble]."
            )
        if apart == ["disassemble"] and self.expansion is None:
            raise UserError("quant.transforms=[disassemble] widens layers: say by how much, such as quant.expansion=0.05.")
        if apart == ["disassemble"] and self.activations is not None:
            self._check_not_grouped("quant.activations.group_size", self.activations.group_size)

    def _check_not_grouped(self, setting: str, group_size: int | None) -> None:
        """Raise UserError for groups of columns, which would hold others where disassembly widens a layer."""
        if group_size not in (-1, 0):
            raise UserError(
                f"{setting}={group_size}: quant.transforms=[disassemble] widens layers, so that groups of columns would hold "
                f"others. Give {setting}=-1 and quant.format=int."
            )

    @property
    def needs_data(self) -> bool:
        """Whether calibration text determines a transform or a fixed range of activations."""
        if self.rotation is not None and self.rotation.steps:
            return True
        return any(transform != "rotate" for transform in self.transforms) or self.has_static_activations

    @property
    def has_static_activations(self) -> bool:
        """Whether the range of each layer's input is fixed before the model runs."""
        return self.activations is not None and self.activations.static

    @property
    def _transforms_label(self) -> str:
        """The transforms' part of the name."""
        alpha = "" if self.smooth_alpha == 0.5 else f"{self.smooth_alpha:g}"
        label = "+".join(self.transforms).replace("smooth", f"smooth{alpha}").replace("scale+clip", "awq")
        label = label if self.expansion is None else label.replace("assemble", f"assemble{self.expansion:g}")
        return label.replace("rotate", f"rotate{self.rotation.label}") if self.rotation else label

    @property
    def _inference_label(self) -> str:
        """The part of the name that is about activations, keys and values."""
        parts = {"a": self.activations, "kv": self.kv}
        return "".join(
            f"-{what}{numbers.label}{_grid_label(numbers, numbers.usual_group, numbers.format != 'int')}"
            for what, numbers in parts.items()
            if numbers is not None
        )


@dataclass
class Rounded(Chain, Numbers):
    """Weights in a number format with a scale (and zero point, unless symmetric) for each group: transforms, then rounding."""

    remainder: str = "shorten"  # what happens to a width that the group does not divide: shorten | pad | row
    true_sequential: bool = True  # a block's layers are calibrated on the rounded outputs of earlier ones

    def __post_init__(self) -> None:
        """Raise UserError for settings that contradict each other."""
        Numbers.__post_init__(self)
        Chain.__post_init__(self)
        one_of("quant.remainder", self.remainder, ("shorten", "pad", "row"))
        if "disassemble" in self.transforms:
            self._check_not_grouped("quant.group_size", self.group_size)
        if self.format in BLOCKS and self.remainder == "row":
            raise UserError(f"quant.remainder=row: {self.format} has blocks of {BLOCKS[self.format]}. Take shorten or pad.")
        if clips := [transform for transform in self.transforms if transform in CLIPS]:
            self._check_clips(clips)

    def _check_clips(self, clips: list[str]) -> None:
        if self.format != "int":
            raise UserError(
                f"quant.transforms=[{clips[0]}] narrows the range of integers; the scale of {self.format} follows from the "
                f"largest value. Leave it out."
            )
        if self.group_size == 0:
            raise UserError(
                f"quant.transforms=[{clips[0]}] narrows groups: quant.group_size=0 has none. Give a group size or -1."
            )
        if len(clips) > 1:
            raise UserError("quant.transforms: clip narrows both ends alike, clip_asymmetric each by itself: take one.")
        if clips == ["clip_asymmetric"] and self.symmetric:
            raise UserError("quant.transforms=[clip_asymmetric]: symmetric integers have one range. quant.symmetric=false.")

    @property
    def has_integer_weights(self) -> bool:
        """Whether the format is integers, with more than one scale for a whole tensor."""
        return self.format == "int" and self.group_size != 0

    @property
    @abstractmethod
    def rounding(self) -> str:
        """How weights are rounded, in the name: `rtn` or `gptq`."""

    @property
    def name(self) -> str:
        """Transforms, rounding, bits, and the settings that differ from the presets."""
        label = "+".join(filter(None, [self._transforms_label, self.rounding])).replace("awq+rtn", "awq")
        at_once = "" if self.true_sequential or not self.needs_data else "-parallel"
        grid = _grid_label(self, 128 if self.format == "int" else self.usual_group, True)
        remainder = "" if self.remainder == "shorten" else f"-{self.remainder}"
        return f"{label}{self.label}{grid}{remainder}{at_once}{self._inference_label}"


@dataclass
class Tuning:
    """Low-rank changes BA of a block's weights W, learned on calibration data before W + BA is rounded (Liu et al. 2024)."""

    rank: int | None = None  # of low-rank changes that are learned before rounding (with rtn); None: no tuning
    epochs: int = 10  # passes over the calibration windows
    lr: float = 5e-4  # learning rate of AdamW, falling to 0 linearly
    seed: int = 0  # draws A and the order of the data

    def __post_init__(self) -> None:
        """Raise UserError for values that are out of range."""
        if self.rank is not None:
            at_least("quant.tuning.rank", self.rank, 1)
        at_least("quant.tuning.epochs", self.epochs, 1)
        if not self.lr > 0:
            raise UserError(f"quant.tuning.lr={self.lr}: a number above 0, such as 5e-4.")

    @property
    def label(self) -> str:
        """The part of a quantizer's name."""
        own = Tuning(rank=4)
        changed = [f"{key}{value:g}" for key, value in vars(self).items() if value != getattr(own, key)]
        return "-".join(["-tuned", *changed])


def _grid_label(numbers: Numbers, usual_group: int, usually_symmetric: bool) -> str:
    """Return the part of a name for a group size and symmetry that differ from the presets."""
    size = {-1: "-row", 0: "-tensor", usual_group: ""}
    group = size.get(-1 if numbers.group_size is None else numbers.group_size, f"-g{numbers.group_size}")
    return group + ("" if numbers.symmetric == usually_symmetric else "-sym" if numbers.symmetric else "-asym")
