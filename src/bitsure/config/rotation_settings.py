"""The settings of rotations before rounding."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitsure.base.errors import UserError, at_least, one_of

ROTATIONS = ("r1", "r2", "r3", "r4")


@dataclass
class RotationSettings:
    """The rotations of `rotate`."""

    # r1: residual stream, r2: values, both folded into weights; r3: keys and values before they are rounded, r4: inputs that no
    # folded rotation reaches, as down_proj's, both while the model runs
    kinds: list[str] = field(default_factory=lambda: ["r1", "r2"])
    seed: int = 0  # draws the matrices
    steps: int = 0  # of learning r1 and r2 on calibration text, each on one batch (SpinQuant); 0: they stay random
    lr: float = 1.5  # the length of a step, falling to 0 linearly, where the gradient allows as much

    def __post_init__(self) -> None:
        """Raise UserError for values that are not allowed."""
        for kind in self.kinds:
            one_of("quant.rotation.kinds", kind, ROTATIONS)
        if not self.kinds or list(self.kinds) != [kind for kind in ROTATIONS if kind in self.kinds]:
            raise UserError(f"quant.rotation.kinds={list(self.kinds)}: one or more, each once, in the order r1, r2, r3, r4.")
        at_least("quant.rotation.steps", self.steps, 0)
        if not self.lr > 0:
            raise UserError(f"quant.rotation.lr={self.lr}: a number above 0, such as 1.5.")
        if not self.steps and self.lr != RotationSettings.lr:
            raise UserError(f"quant.rotation.lr={self.lr}: nothing is learned without quant.rotation.steps. Leave it out.")
        if self.steps and not {"r1", "r2"} & set(self.kinds):
            raise UserError(
                f"quant.rotation.steps={self.steps}: r1 and r2 are learned, and quant.rotation.kinds has neither. Add one."
            )

    @property
    def label(self) -> str:
        """The part of a quantizer's name: settings that are not the defaults. Draws of one quantizer have one name."""
        kinds = "" if self.kinds == ["r1", "r2"] else "".join(kind[1:] for kind in self.kinds)
        own, numbers = RotationSettings(), {"steps": self.steps, "lr": self.lr}
        changed = [f"-{key}{value:g}" for key, value in numbers.items() if value != getattr(own, key)]
        return "".join([kinds, *changed])
