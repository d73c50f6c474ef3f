"""The contrasts of a sweep in plain words: which quantizer, or which model, loses more on the same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitsure.base.decimals import decimal
from bitsure.metrics.metric_names import MACRO, PRIMARY
from bitsure.report.tables import number
from bitsure.sweep.report.contrasts import Contrasts, RunContrast
from bitsure.sweep.report.run_columns import CellColumns
from bitsure.sweep.report.sweep_statistics import ModelSpread

MOST_SENTENCES = 20  # of one kind; the tables have all contrasts


def spread_sentences(spreads: list[ModelSpread], alpha: float) -> list[str]:
    """Return whether models differ in what quantization does to them, a sentence for each quantizer over its tasks."""
    groups: dict[str, list[ModelSpread]] = {}
    for spread in spreads:
        if spread.metric == PRIMARY and spread.task != MACRO:
            groups.setdefault(spread.label, []).append(spread)
    return [_spread_sentence(label, members, alpha) for label, members in groups.items()]


def _spread_sentence(label: str, spreads: list[ModelSpread], alpha: float) -> str:
    different = [spread.task for spread in spreads if spread.p_adjusted is not None and spread.p_adjusted < alpha]
    rest = [spread.task for spread in spreads if spread.task not in different]
    ends = min(spread.smallest for spread in spreads), max(spread.largest for spread in spreads)
    smallest, largest = (decimal(end, "+.4f") for end in ends)
    change = f"{label}: the true-label probability changed by {smallest} to {largest} over models and tasks. "
    if not different:
        return change + "No task shows that models differ in this. This does not prove that they are equal."
    sentence = change + f"Models differ in this by more than their errors explain on {', '.join(different)}"
    if rest:
        return sentence + f"; no difference is shown on {', '.join(rest)}, which does not prove that they are equal there."
    return sentence + "."


def quantizer_sentences(contrasts: Contrasts, alpha: float) -> list[str]:
    """Return which of two quantizers of a model loses more, a sentence a pair, the surest differences first."""
    return _sentences(contrasts.quantizers, lambda c: (_model(c), c.first.quantizer_label, c.second.quantizer_label), alpha)


def model_sentences(contrasts: Contrasts, alpha: float) -> list[str]:
    """Return which of two models loses more by a quantizer, a sentence a pair, the surest differences first."""
    return _sentences(contrasts.models, lambda c: (c.first.label, c.first.model, c.second.model), alpha)


def _model(contrast: RunContrast) -> str:
    columns = contrast.first
    return f"{columns.model}, {columns.conditions}" if columns.conditions else columns.model


def _sentences(
    contrasts: Sequence[RunContrast], names: Callable[[RunContrast], tuple[str, str, str]], alpha: float
) -> list[str]:
    groups: dict[tuple[str, str, str], list[RunContrast]] = {}
    for contrast in contrasts:
        if contrast.metric == PRIMARY:
            groups.setdefault(names(contrast), []).append(contrast)
    ordered = sorted(groups.items(), key=lambda group: min(_surprise(contrast) for contrast in group[1]))
    return [_sentence(*pair, members, alpha) for pair, members in ordered[:MOST_SENTENCES]]


def _surprise(contrast: RunContrast) -> float:
    """Return what pairs are sorted by: the adjusted p-value; those without a test come last."""
    return 2.0 if contrast.p_adjusted is None else contrast.p_adjusted


def _sentence(common: str, first: str, second: str, contrasts: Sequence[RunContrast], alpha: float) -> str:
    """Return on which tasks one of two runs loses more true-label probability than the other."""
    shown = [contrast for contrast in contrasts if contrast.p_adjusted is not None and contrast.p_adjusted < alpha]
    parts = []
    for worse, other, sign in ((second, first, -1), (first, second, 1)):
        on = [f"{number(abs(contrast.value))} on {contrast.task}" for contrast in shown if sign * contrast.value > 0]
        if on:
            parts.append(f"{worse} loses more than {other}, by {', '.join(on)}")
    means = [contrast for contrast in contrasts if contrast.draws > 1]
    if means:
        on = [
            f"{number(mean.value, True)} [{number(mean.ci_low, True)}, {number(mean.ci_high, True)}] on {mean.task}"
            for mean in means
        ]
        parts.append(f"{second} less {first} over {means[0].draws} calibration seeds: {', '.join(on)}")
    rest = [contrast.task for contrast in contrasts if contrast not in shown and contrast not in means]
    if rest:
        pair = "" if parts else f" between {first} and {second}"
        parts.append(f"no difference{pair} is shown on {', '.join(rest)}")
    return f"{common}: {'; '.join(parts)}."


def why_no_contrasts(contrasts: Contrasts, runs: Sequence[CellColumns]) -> str:
    """Return why two or more runs could not be contrasted with each other; empty where some were, or there are not two."""
    if contrasts.models or contrasts.quantizers or len(runs) < 2:
        return ""
    conditions = list(dict.fromkeys(run.conditions for run in runs if run.conditions))
    if len(conditions) > 1:
        return (
            f"No two runs were asked the same questions: they differ in {' and '.join(conditions)}, and so in their prompts or "
            "their questions. Contrasts are made on the same questions alone."
        )
    return (
        "No two runs are contrasted: that takes two models under one quantizer, or two quantizers of one method or of similar "
        "bits on one model, that were asked the same questions."
    )
