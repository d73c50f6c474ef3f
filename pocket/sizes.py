"""The models of the family: their shapes, and how long each is trained. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 2400
WINDOWS_PER_STEP = 12  # 3,072 tokens
HEAD = 32  # width of an attention head


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of the learning rates."""

    rate: float = 1.0
    """What the rates are multiplied by."""
    stop: int | None = None
    """The step that training ends with; None: the last, when the rates are 0."""


WHOLE = Cycle()


@dataclass(frozen=True)
class Size:
    """What tells a model from the others."""

    family: str
    width: int
    feed_forward: int
    layers: int
    steps: int = STEPS
    """Of the training, each on the next windows of one stream of text."""
    cycle: Cycle = WHOLE


SIZES = {
    "pocket-300k": Size("opt", 128, 256, 1),
    "pocket-1m": Size("opt", 128, 512, 4),
    "pocket-4m": Size("opt", 256, 1024, 5),
    "pocket-llama-1m": Size(
        "llama", 256, 512, 2, steps=900, cycle=Cycle(stop=700)
    ),  # widths that llama.cpp's blocks of 256 weights fill
}
