"""The numbers of one run, by task and metric."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitsure.config.schema import MetricSettings
from bitsure.metrics import bootstrap, calibration, paper_compat, paper_intervals, repair, texts
from bitsure.metrics.calibration import Bins
from bitsure.metrics.confidence import Questions, questions
from bitsure.metrics.ranking import Aurc, Auroc
from bitsure.metrics.statistics import Estimate, Statistic, estimate, mean, standard_error
from bitsure.records.record import Records, by_task, has_choices
from bitsure.results.measurement import Measurement, MetricsByTask

M = TypeVar("M", bound=Measurement)
ECE = "expected_calibration_error"
MACRO = "macro_average"
AT_OWN = ("nll", ECE, "debiased_squared_calibration_error")  # what is also given at the model's own temperature
NULL_DRAWS = 200
FEWEST_CLUSTERS = 30


def statistics(asked: Questions, metric: MetricSettings) -> dict[str, Statistic]:
    """Every metric by its name. Several right choices have another Brier score, under another name.

    The bins are those of these questions; the class-wise error is there only where the choices have a fixed meaning.
    """
    bins = bins_of(asked, metric)
    found: dict[str, Statistic] = {
        "accuracy": mean(lambda q: q.correct),
        "confidence": mean(lambda q: q.confidence),
        "confidence_correct": mean(lambda q: q.confidence, among=lambda q: q.correct),
        "confidence_wrong": mean(lambda q: q.confidence, among=lambda q: 1 - q.correct),
        "true_label_prob": mean(lambda q: q.true_label_prob),
        "entropy": mean(lambda q: q.entropy),
        "margin": mean(lambda q: q.margin),
        "nll": mean(lambda q: q.nll),
        "brier_score_set" if asked.several_gold else "brier_score": mean(lambda q: q.brier_score),
        "overconfidence": mean(lambda q: q.confidence - q.correct),
        ECE: calibration.expected_calibration_error(bins),
        "debiased_squared_calibration_error": calibration.debiased_squared_error(bins),
        "smooth_calibration_error": calibration.smooth_calibration_error(),
        "maximum_calibration_error": calibration.maximum_calibration_error(bins),
        "rms_calibration_error": calibration.rms_calibration_error(bins),
        **calibration.brier_parts(bins),
        "auroc": Auroc(),
        "aurc": Aurc(),
        "aurc_excess": Aurc(excess=True),
    }
    if _choices_have_a_meaning(asked):
        found["classwise_calibration_error"] = calibration.classwise_calibration_error(Bins.uniform(metric.n_bins))
    return found


def above_guessing() -> Statistic:
    """Accuracy less that of guessing. Two models' differ as their accuracies do, so that it is of one model alone."""
    return mean(lambda q: q.correct - q.guessed)


def _choices_have_a_meaning(asked: Questions) -> bool:
    """Whether all questions have the same choices, as no and yes, and these are no mere letters or digits of an option."""
    texts = asked.fixed_choices or ()
    return len(asked) > 1 and not asked.several_gold and any(len(text.strip()) > 1 for text in texts)


def bins_of(asked: Questions, metric: MetricSettings) -> Bins:
    """The confidence bins that a metric config asks for; quantiles are those of these questions."""
    if metric.binning == "uniform":
        return Bins.uniform(metric.n_bins)
    return Bins.quantile(asked.confidence, metric.n_bins)


def calibrated(asked: Questions, sample: Sample, metric: MetricSettings) -> dict[str, Estimate]:
    """The run's own temperature, and its losses at it, cross-fitted: what is left when the softmax is as sharp as is best.

    Only these calibration errors can be compared across normalizations, which change the softmax's temperature.
    """
    fold = repair.folds(len(asked), sample.clusters, metric.seed)
    inverse = repair.inverse_temperatures(asked, fold)
    tempered = asked.at_temperature(inverse)
    everything = statistics(tempered, metric)
    found = estimate({name: everything[name] for name in AT_OWN}, tempered, sample.weights, sample.clusters)
    error = standard_error(repair.temperature_influence(asked, fold, inverse), sample.clusters)
    temperature = Estimate(float((1 / inverse).mean()), error, None, "influence function", 0.0)
    return {"temperature": temperature} | {f"{name}_at_own_temperature": one for name, one in found.items()}


def measure(records: Records, metric: MetricSettings) -> MetricsByTask:
    """metrics.json; intervals resample questions, and hold for this checkpoint.

    What has no choices has numbers of its own, and no part in the average over tasks.
    """
    results: MetricsByTask = {}
    estimates: dict[str, dict[str, Estimate]] = {}
    for task, found in by_task(records).items():
        if has_choices(found):
            results[task], estimates[task] = _measure_choices(found, metric)
        else:
            results[task] = _measure_texts(found, metric)
    if len(estimates) > 1:
        results[MACRO] = macro_average(Measurement, estimates, metric.confidence_level)
    return results


def _measure_choices(found: pa.Table, metric: MetricSettings) -> tuple[dict[str, Measurement], dict[str, Estimate]]:
    asked, sample, level = questions(found, metric.normalization), Sample.of(found, metric), metric.confidence_level
    chosen = statistics(asked, metric) | {"accuracy_above_guessing": above_guessing()}
    estimates = estimate(chosen, asked, sample.weights, sample.clusters) | calibrated(asked, sample, metric)
    result = {
        name: summarize(Measurement, one, chosen[name].count(asked) if name in chosen else len(asked), sample, level)
        for name, one in estimates.items()
    }
    null = calibration.errors_if_calibrated(asked.confidence, bins_of(asked, metric), NULL_DRAWS, metric.seed)
    low, high = bootstrap.percentile_interval(null, level)
    result[f"{ECE}_if_calibrated"] = Measurement(
        value=float(null.mean()),
        ci_low=low,
        ci_high=high,
        n=len(asked),
        interval="percentile",
        resampled="which answers are right, drawn from Bernoulli(confidence)",
    )
    if metric.paper_compat:
        kept = len(paper_compat.kept(found))
        for name, one in paper_intervals.estimates(found, sample.weights, sample.clusters).items():
            result[f"paper_compat/{name}"] = summarize(Measurement, one, kept, sample, level)
    return result, estimates


def _measure_texts(found: pa.Table, metric: MetricSettings) -> dict[str, Measurement]:
    scored, sample = texts.texts(found), Sample.of(found, metric)
    estimates = estimate(texts.statistics(scored), scored, sample.weights, sample.clusters)
    level = metric.confidence_level
    return {name: summarize(Measurement, one, len(scored), sample, level) for name, one in estimates.items()}


class Sample:
    """How the questions of a task are resampled: alone, or together where they have something in common.

    clusters: (n,) of int from 0, or None where every question is alone.
    """

    def __init__(self, n: int, clusters: np.ndarray | None, metric: MetricSettings):
        self.clusters = clusters
        self.n_clusters = None if clusters is None else int(clusters.max()) + 1
        self.unit = "questions" if clusters is None else f"clusters of questions ({self.n_clusters:,})"
        self._n, self._metric = n, metric

    @cached_property
    def weights(self) -> np.ndarray | None:
        """(n, resamples) of a bootstrap; None of too many questions for one."""
        if self._n > bootstrap.MOST_RESAMPLED:
            return None
        return bootstrap.resample_weights(self._n, self._metric.resamples, self._metric.seed, self.clusters)

    @classmethod
    def of(cls, records: pa.Table, metric: MetricSettings) -> Sample:
        """By the records' clusters. One that all questions share leaves nothing to resample; nor are a few prompts that all
        share (often an empty one) anything that questions have in common.
        """
        prompts = records["prompt_hash"]
        names = pc.coalesce(records["cluster"], prompts)
        codes = names.combine_chunks().dictionary_encode().indices.to_numpy()
        fewest = FEWEST_CLUSTERS if pc.all(pc.equal(names, prompts)).as_py() else 2
        return cls(len(codes), codes if fewest <= codes.max() + 1 < len(codes) else None, metric)


def macro_average(kind: type[M], estimates: dict[str, dict[str, Estimate]], level: float) -> dict[str, M]:
    """The mean over the tasks that have a metric, tasks counting alike. Their errors are taken for independent: where tasks ask
    about the same people or passages, the interval is too narrow.
    """
    results = {}
    for name in dict.fromkeys(name for found in estimates.values() for name in found):
        have = [one for found in estimates.values() if (one := found.get(name)) and math.isfinite(one.value)]
        if not have:
            continue
        value = float(np.mean([one.value for one in have]))
        error = math.sqrt(sum(one.standard_error**2 for one in have)) / len(have)
        low, high = bootstrap.normal_interval(value, error, level)
        results[name] = kind(
            value=value,
            ci_low=low,
            ci_high=high,
            n=len(have),
            standard_error=error,
            interval="normal, over tasks",
            resampled="questions within tasks",
        )
    return results


def summarize(kind: type[M], estimate: Estimate, n: int, sample: Sample, level: float, **fields: Any) -> M:
    """Return an estimate as a result, with what its interval resampled, and how many clusters its n questions come in."""
    low, high = estimate.interval(level)
    if sample.n_clusters is not None:
        fields["n_clusters"] = sample.n_clusters
    return kind(
        value=estimate.value,
        ci_low=low,
        ci_high=high,
        n=n,
        standard_error=estimate.standard_error,
        interval=estimate.kind,
        resampled=sample.unit if estimate.replicates is not None else f"none: the influence of {sample.unit}",
        **fields,
    )
