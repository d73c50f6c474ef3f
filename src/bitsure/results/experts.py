"""The part of quantization.json on mixtures of experts: what each expert learned from, and what the gates decide now."""

from __future__ import annotations

from bitsure.results.result import Integer, Result


class WindowMean(Result):
    """A mean over windows of held-out text, with its 95% t interval over windows."""

    value: float
    """The mean of the windows' means."""
    ci_low: float | None
    """The interval's lower end; null for fewer than two windows."""
    ci_high: float | None
    """The interval's upper end; null for fewer than two windows."""
    windows: Integer
    """The number of windows."""


class ExpertCalibration(Result):
    """The calibration tokens of each expert, as the full-precision model's gates decide."""

    tokens: dict[str, list[Integer]]
    """List of experts → the tokens that are routed to each."""
    few: dict[str, Integer]
    """Expert → its tokens, where they are fewer than the channels of its input: their Hessian has not full rank."""
    all_experts: bool
    """Whether each expert learned from every token all the same (`calib.all_experts`)."""


class RoutingChange(Result):
    """What the gates decide on held-out text after quantization, and what that costs.

    A loss is the probability of the text's next token in full precision less that of the quantized model, at most 1.
    """

    changed: WindowMean
    """The share of decisions, a token's at a gate, that choose another set of experts than in full precision, in [0, 1]."""
    layers: dict[str, float]
    """List of experts → the share of its decisions, in [0, 1]."""
    loss: WindowMean
    """The loss of the quantized model."""
    loss_same_experts: WindowMean
    """The loss if each token is given the experts, and their weights, that it has in full precision."""
    loss_by_routing: WindowMean
    """`loss` − `loss_same_experts`: what other decisions cost, paired by window."""
    loss_where_changed: WindowMean | None
    """The loss at tokens with another set of experts at some gate; null without such tokens. Rounding that moves a token far
    changes both its experts and its probabilities, so that this is no cause."""
    loss_where_same: WindowMean | None
    """The loss at tokens with the same experts at every gate; null without such tokens."""


class Experts(Result):
    """A mixture of experts."""

    number: Integer
    """Experts, over all blocks."""
    calibration: ExpertCalibration | None = None
    """Absent where the quantizer reads no text."""
    routing: RoutingChange | None = None
    """Absent where the model's own code runs its experts, so that the decisions are not seen."""
