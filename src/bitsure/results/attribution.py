"""attribution.json: which part of the model the loss of fidelity comes from."""

from __future__ import annotations

from typing import Literal, TypeAlias

from bitsure.results.measurement import Interval, Number
from bitsure.results.result import Result

PartKind: TypeAlias = Literal["block", "type", "layer", "other"]


class PartEffect(Result):
    """A model of which some parts are quantized, beside full precision."""

    kl_divergence: float
    """Mean KL(full precision ‖ this model) of the next token over the text's sample, nats."""
    kl_divergence_ci: Interval | None
    """Its interval, by documents, or by windows of one document; null for fewer than two."""
    true_label_prob_change: Number
    """Mean change of the right choices' probability over the sampled questions, in [−1, 1]; null where none was asked."""
    true_label_prob_change_ci: Interval | None
    """Its interval, by questions, or by clusters of them; null where there is none."""


class AttributedPart(Result):
    """A part of the model."""

    kind: PartKind
    """`block`; `type`: layers of one name in all blocks; `other`: keys and values, or what is outside the blocks."""
    name: str
    """The block's name in the model, the type's, `keys and values`, or `outside the blocks`."""
    quantized_alone: PartEffect
    """Only this part is quantized."""
    restored_alone: PartEffect
    """Everything is quantized but this part."""


class AttributedLayer(Result):
    """A layer, quantized alone."""

    block: str
    """The name of its block in the model."""
    type: str
    """Its type, as in `parts`."""
    kl_divergence: float
    """Mean KL(full precision ‖ the model with this layer quantized), nats."""
    kl_divergence_ci: Interval | None
    """Its interval, by documents, or by windows of one document; null for fewer than two."""


class KeptLayers(Result):
    """The quantized model with a few layers in more bits, measured on the same sample of the text."""

    layers: list[str]
    """The layers whose quantization alone has the largest KL divergences."""
    bits: int
    """Bits of their weights now."""
    bits_per_weight: float
    """Bits that a quantized weight takes then, scales and zero points counted."""
    bits_per_weight_before: float
    """Bits that a quantized weight takes in the run's model, scales and zero points counted."""
    kl_divergence_expected: float
    """`quantized`'s KL divergence less those of the layers alone, nats, at least 0: what it would be if losses added up."""
    kl_divergence: float
    """Mean KL divergence that was measured, nats."""
    kl_divergence_ci: Interval | None
    """Its interval, by documents, or by windows of one document; null for fewer than two."""


class Attribution(Result):
    """attribution.json."""

    text_name: str
    """The text's name in metrics.json, or what held-out calibration text is called."""
    windows: int
    """Windows of the text that were sampled, evenly over it."""
    tokens: int
    """Tokens of them that were scored."""
    questions: int
    """Questions that were sampled, evenly over the tasks; 0 where no task has choices."""
    scorings: float
    """Work of all passes, in scorings of the run's questions and text by one model."""
    quantized: PartEffect
    """Everything is quantized."""
    parts: list[AttributedPart]
    """Blocks, types of layers, and what else is rounded."""
    layers: dict[str, AttributedLayer]
    """Layer → what quantizing it alone does."""
    kept_layers: KeptLayers | None = None
    """The recipe of a few layers in 8 bits; absent for quantizers whose layers cannot have bits of their own."""


class MeasuredParts(Result):
    """What the store keeps of an attribution: numbers by segment and question, which attribution.json is made from.

    The models are called `quantized`, `alone` or `restored` and a part's kind and name, and `kept layers`.
    """

    text_name: str
    """The text's name."""
    windows: int
    """Windows that were sampled."""
    tokens: list[int]
    """Scored tokens of each segment: what one window has of one document."""
    units: list[int]
    """Each segment's document, or its window where the sample is of one document, from 0: what intervals resample."""
    divergences: dict[str, list[float]]
    """Model → the sum of each segment's KL divergences, nats."""
    true_label_probs: dict[str, list[float]]
    """Model, or `full precision` → the probability of each question's right choices."""
    tasks: list[str]
    """Each question's task."""
    clusters: list[str]
    """Each question's cluster, as in records."""
    prompts: list[str]
    """The hash of each question's prompt."""
    parts: list[tuple[PartKind, str]]
    """Kind and name of each part."""
    layers: dict[str, tuple[str, str]]
    """Layer → its block and its type."""
    scorings: float
    """Work of all passes, in scorings of the run's questions and text by one model."""
    kept_layers: MeasuredKeptLayers | None
    """Null for quantizers whose layers cannot have bits of their own."""


class MeasuredKeptLayers(Result):
    """Of the quantized model with a few layers in more bits."""

    layers: list[str]
    """The layers."""
    bits: int
    """Bits of their weights."""
    recipe: dict[str, int]
    """Layer → bits, of all layers."""
    bits_per_weight: float
    """Bits that a quantized weight takes then, scales and zero points counted."""


FULL, QUANTIZED, KEPT = "full precision", "quantized", "kept layers"
"""What measurements call whole models."""


def alone(kind: PartKind, name: str) -> str:
    """Return what measurements call the model of which one part alone is quantized."""
    return f"alone: {kind} {name}"


def restored(kind: PartKind, name: str) -> str:
    """Return what measurements call the quantized model of which one part alone is not."""
    return f"restored: {kind} {name}"
