"""Does quantization do more to a task than noise of the same output error? In words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bitsure.base.decimals import decimal
from bitsure.comparison.noise_control import SIZE_FACTOR, place_in_range, size_mismatch
from bitsure.metrics.metric_names import NOISE_CONTROL, PRIMARY
from bitsure.results.measurement import Difference
from bitsure.results.verdict import NoiseVerdict

ROUNDING = 1e-9  # of 1 / α
NOISE_LABELS = {PRIMARY: "the right answer's probability", "nll": "the NLL of a token"}
FARE_WORSE = "fare worse than sure ones by more than such noise explains"  # they lose more, or gain less


def against_noise(task: str, values: Mapping[str, Difference], alpha: float, scale: float = 1.0) -> NoiseVerdict:
    """Return where the quantized model lies within the range of noise of the same output error.

    Args:
        task: The task's name.
        values: The task's part of a comparison with a noise control.
        alpha: The significance level of the slope's test, in (0, 1).
        scale: The noise's output error ÷ the quantizer's.
    """
    names = [name for name in values if f"{NOISE_CONTROL}{name}" in values]
    places = {name: place_in_range(name, values[name].value, values[f"{NOISE_CONTROL}{name}"]) for name in names}
    name = PRIMARY if PRIMARY in names else "nll"
    change, noise = values[name], values[f"{NOISE_CONTROL}{name}"]
    size = "the same" if scale == 1 else f"{scale:g} times the"
    sentence = (
        f"{task}: noise of {size} output error ({noise.n} seeds) changes {NOISE_LABELS[name]} by "
        f"{decimal(noise.ci_low, '+.4f')} to {decimal(noise.ci_high, '+.4f')}; quantization, by "
        f"{decimal(change.value, '+.4f')}, is "
        f"{'within that' if places[name] == 'within' else f'{places[name]} than that'}."
    )
    if "kl_divergence" in names:
        noise_kl = values[f"{NOISE_CONTROL}kl_divergence"].value
        sentence += f" Mean KL {values['kl_divergence'].value:.4f}, of the noise {noise_kl:.4f}."
    what = "questions" if PRIMARY in names else "tokens"
    if "harm_slope" in names and (mismatch := size_mismatch(values)):
        sentence += (
            f" Whether unsure {what} {FARE_WORSE} is not tested: {mismatch}, and noise is a "
            f"control only within a factor of {SIZE_FACTOR:g}.{_scale_that_fits(values, scale)}"
        )
    elif "harm_slope" in names and (p_value := values["harm_slope"].p_value) is not None:
        sentence += f" {_slope_sentence(what, p_value, noise.n, alpha)}"
    return NoiseVerdict(places=places, sentence=sentence)


def _scale_that_fits(values: Mapping[str, Difference], scale: float) -> str:
    """Return which `control.scale` gives the noise the quantizer's mean KL, which grows with the square of small noise."""
    noise, quantizer = values[f"{NOISE_CONTROL}kl_divergence"].value, values["kl_divergence"].value
    return f" Try control.scale={scale * math.sqrt(quantizer / noise):.2g}." if noise and quantizer else ""


def _slope_sentence(what: str, p_value: float, seeds: int, alpha: float) -> str:
    """Return what the slope's test shows; p ≥ 1 / (seeds + 1), so that few seeds cannot show anything at a small α."""
    numbers = f"p = {p_value:.2g}, unadjusted"
    if p_value <= alpha:
        return f"Unsure {what} {FARE_WORSE} ({numbers})."
    if alpha < 1 / (seeds + 1):
        needed = math.ceil(1 / alpha - ROUNDING) - 1
        return (
            f"Whether unsure {what} {FARE_WORSE}, {seeds} seeds cannot show at "
            f"α = {alpha:g} ({numbers}): that takes at least {needed}."
        )
    return f"It is not shown that unsure {what} {FARE_WORSE} ({numbers})."
