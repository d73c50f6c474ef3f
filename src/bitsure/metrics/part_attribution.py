"""Which part of a model the loss of fidelity comes from: means over a sample of text and questions, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from bitsure.metrics.arrays import FloatArray, IntArray
from bitsure.metrics.estimation import estimate
from bitsure.metrics.resampling import cluster_codes
from bitsure.metrics.statistic import SumStatistic, mean
from bitsure.results.attribution import (
    FULL,
    KEPT,
    QUANTIZED,
    AttributedLayer,
    AttributedPart,
    Attribution,
    KeptLayers,
    MeasuredParts,
    PartEffect,
    alone,
    restored,
)
from bitsure.results.measurement import Interval


@dataclass(frozen=True)
class _Segments:
    """The KL divergences of n segments of windows."""

    sums: FloatArray
    """The sum over each segment's tokens, nats, shape (n,)."""
    tokens: FloatArray
    """The tokens of each segment, shape (n,)."""

    def __len__(self) -> int:
        return len(self.sums)


DIVERGENCE: SumStatistic[_Segments] = SumStatistic(
    lambda segments: np.stack([segments.sums, segments.tokens], axis=1),
    lambda sums: sums[..., 0] / sums[..., 1],
    "positive",
    least=0.0,
)


def attribute(measured: MeasuredParts, bits_per_weight: float, level: float) -> Attribution:
    """Return what each part does to fidelity, and what a few layers in more bits do.

    Args:
        measured: The numbers of each segment and question.
        bits_per_weight: Of the quantized model.
        level: The confidence level of the intervals.
    """
    effect = partial(_effect, measured, level)
    quantized = effect(QUANTIZED)
    layers = {}
    for name, (block, of_type) in measured.layers.items():
        divergence, interval = _divergence(measured, alone("layer", name), level)
        layers[name] = AttributedLayer(block=block, type=of_type, kl_divergence=divergence, kl_divergence_ci=interval)
    return Attribution(
        text_name=measured.text_name,
        windows=measured.windows,
        tokens=sum(measured.tokens),
        questions=len(measured.true_label_probs.get(FULL, [])),
        scorings=measured.scorings,
        quantized=quantized,
        parts=[
            AttributedPart(
                kind=kind,
                name=name,
                quantized_alone=effect(alone(kind, name)),
                restored_alone=effect(restored(kind, name)),
            )
            for kind, name in measured.parts
        ],
        layers=layers,
        **_kept(measured, quantized, layers, bits_per_weight, level),
    )


def _kept(
    measured: MeasuredParts, quantized: PartEffect, layers: dict[str, AttributedLayer], bits_per_weight: float, level: float
) -> dict[str, KeptLayers]:
    kept = measured.kept_layers
    if kept is None:
        return {}
    divergence, interval = _divergence(measured, KEPT, level)
    expected = quantized.kl_divergence - sum(layers[name].kl_divergence for name in kept.layers)
    return {
        "kept_layers": KeptLayers(
            layers=kept.layers,
            bits=kept.bits,
            bits_per_weight=kept.bits_per_weight,
            bits_per_weight_before=bits_per_weight,
            kl_divergence_expected=max(0.0, expected),
            kl_divergence=divergence,
            kl_divergence_ci=interval,
        )
    }


def _effect(measured: MeasuredParts, level: float, model: str) -> PartEffect:
    divergence, interval = _divergence(measured, model, level)
    change, change_interval = _change(measured, model, level)
    return PartEffect(
        kl_divergence=divergence,
        kl_divergence_ci=interval,
        true_label_prob_change=change,
        true_label_prob_change_ci=change_interval,
    )


def _divergence(measured: MeasuredParts, model: str, level: float) -> tuple[float, Interval | None]:
    segments = _Segments(np.array(measured.divergences[model]), np.array(measured.tokens, dtype=float))
    estimated = estimate({"": DIVERGENCE}, segments, None, np.array(measured.units))[""]
    return max(estimated.value, 0.0), estimated.finite_interval(level)


def _change(measured: MeasuredParts, model: str, level: float) -> tuple[float | None, Interval | None]:
    if not measured.true_label_probs:
        return None, None
    full, own = (np.array(measured.true_label_probs[name]) for name in (FULL, model))
    statistic = mean(lambda changes: changes, least=-1.0, most=1.0)
    estimated = estimate({"": statistic}, own - full, None, _question_clusters(measured))[""]
    return estimated.value, estimated.finite_interval(level)


def _question_clusters(measured: MeasuredParts) -> IntArray:
    """Return each question's cluster among all tasks, from 0."""
    tasks = np.array(measured.tasks)
    clusters, n = np.empty(len(tasks), dtype=np.int64), 0
    for task in dict.fromkeys(measured.tasks):
        of_task = np.flatnonzero(tasks == task)
        names, prompts = ([column[i] for i in of_task] for column in (measured.clusters, measured.prompts))
        codes = cluster_codes(names, prompts)
        clusters[of_task] = n + (np.arange(len(of_task)) if codes is None else codes)
        n = int(clusters[of_task].max()) + 1
    return clusters
