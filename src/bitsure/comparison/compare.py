"""Full precision against quantized on the very same questions: paired differences, tests, flips, harm, repair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from bitsure.base.errors import UserError
from bitsure.comparison import noise_control as control
from bitsure.config.schema import MetricSettings
from bitsure.metrics import deferral, paper_compat, paper_intervals, repair, texts
from bitsure.metrics.confidence import questions
from bitsure.metrics.measure import MACRO, Sample, above_guessing, macro_average, statistics, summarize
from bitsure.metrics.paired_statistics import paired_statistics
from bitsure.metrics.question_pairs import Pairs
from bitsure.metrics.significance import (
    SignificanceTest,
    agresti_min,
    benjamini_hochberg,
    cluster_robust_t_test,
    holm,
    mcnemar,
    paired_t_test,
    z_test,
)
from bitsure.metrics.statistics import Estimate, estimate, standard_error
from bitsure.records.joining import Join, join
from bitsure.records.record import Records, by_task, has_choices, is_text
from bitsure.results.measurement import Comparison, Difference, Interval

PRIMARY = "true_label_prob"
BASELINE_GUESSING = "baseline_accuracy_above_guessing"
CLUSTER_ROBUST = f"{PRIMARY}_cluster_robust"
# each model's over its own right or wrong answers, so that the difference also holds what moved between the two
CONDITIONAL = ("confidence_correct", "confidence_wrong")


def compare(
    baseline: Records,
    quantized: Records,
    metric: MetricSettings,
    bits_per_weight: float | None = None,
    noisy: Sequence[Records] = (),
) -> Comparison:
    """comparison.json: by task and metric a Difference, whose value is quantized − baseline.

    true_label_prob carries the primary test: the study's paired two-sided t-test, adjusted by Holm over the tasks (whole
    texts have no such probability; what is tested of them is the NLL). All else is exploratory, adjusted by
    Benjamini–Hochberg over all of it; so is the cluster-robust t-test, which stands beside the study's where questions come
    in clusters, as that one takes them all for independent. Raises UserError if no question of the two runs is the same.

    bits_per_weight: of the quantized model, if known, for the cost of deferral. noisy: records of the noise control, one for
    each seed; they give `harm_slope` its test and each task the entries `noise_control/…`.
    """
    joined = join(baseline, quantized)
    cost = deferral.cost_of_quantized(metric.quantized_cost, bits_per_weight)
    results: Comparison = {}
    estimates: dict[str, dict[str, Estimate]] = {}
    full, quant = by_task(joined.baseline), by_task(joined.quantized)
    primary = [task for task, found in quant.items() if not is_text(found)]
    alpha = metric.alpha / max(1, len(primary))
    for task, found in quant.items():
        if has_choices(found):
            results[task], estimates[task] = _compare_task(full[task], found, metric, alpha, cost)
        else:
            results[task] = _compare_texts(full[task], found, metric, alpha)
    if noisy:
        _add_control(results, joined, noisy, metric)
    _adjust(results, primary, metric.alpha)
    for task in dict.fromkeys([*results, *joined.only_baseline, *joined.only_quantized]):
        counts = _counts(task, len(quant.get(task, ())), joined)
        results[task] = results.get(task, {}) | counts  # a task of which nothing joined has its counts alone
    if len(estimates) > 1:
        results[MACRO] = macro_average(Difference, estimates, metric.confidence_level)
    return results


def _adjust(results: Comparison, primary: Sequence[str], alpha: float) -> None:
    """Adjust the p-values of the primary tests by Holm, those of all others by Benjamini and Hochberg."""
    p_values = [_p_value(results[task][PRIMARY]) for task in primary]
    for task, adjusted in zip(primary, holm(p_values), strict=True):
        family = {"family": "primary", "p_adjusted": adjusted, "significant": adjusted < alpha}
        results[task][PRIMARY] = results[task][PRIMARY].model_copy(update=family)
    explored = [
        (task, name)
        for task, values in results.items()
        for name, one in values.items()
        if one.p_value is not None and one.family is None
    ]
    p_values = [_p_value(results[task][name]) for task, name in explored]
    for (task, name), adjusted in zip(explored, benjamini_hochberg(p_values), strict=True):
        family = {"family": "exploratory", "p_adjusted": adjusted}
        results[task][name] = results[task][name].model_copy(update=family)


def _p_value(one: Difference) -> float:
    assert one.p_value is not None  # asked of those alone that were tested
    return one.p_value


def _with_test(one: Difference, test: SignificanceTest | None, **fields: Any) -> Difference:
    """Return the difference with a test's results, if there is one, and other fields in the place of its own."""
    return one.model_copy(update=(test.fields() if test else {}) | fields)


def _add_control(results: Comparison, joined: Join, noisy: Sequence[Records], metric: MetricSettings) -> None:
    runs = [join(joined.baseline, one) for one in noisy]
    if any(run.only_baseline for run in runs):
        raise UserError("The noise control was not asked all the questions that are compared. Score it again.")
    full, noise = by_task(joined.baseline), [by_task(run.quantized) for run in runs]
    for task, values in results.items():
        around = control.noise_control(full[task], [run[task] for run in noise], metric)
        if "harm_slope" in values:
            seeds = around[f"{control.PREFIX}harm_slope"].seeds or ()
            values["harm_slope"] = _with_test(values["harm_slope"], control.slope_test(values["harm_slope"].value, seeds))
        values.update(around)


def was_compared(values: Iterable[str]) -> bool:
    """Whether a task of comparison.json has more metrics than counts."""
    return "nll" in values


def _counts(task: str, joined_questions: int, joined: Join) -> dict[str, Difference]:
    counts = {
        "questions_joined": joined_questions,
        "questions_only_baseline": joined.only_baseline.get(task, 0),
        "questions_only_quantized": joined.only_quantized.get(task, 0),
    }
    return {name: Difference(value=count, ci_low=None, ci_high=None, n=count) for name, count in counts.items()}


def _compare_task(
    before: pa.Table, after: pa.Table, metric: MetricSettings, alpha: float, cost_quantized: float
) -> tuple[dict[str, Difference], dict[str, Estimate]]:
    """alpha: of one of the primary tests, at the least."""
    full, quant = (questions(side, metric.normalization) for side in (before, after))
    sample = Sample.of(after, metric)
    pairs = Pairs(full, quant, repair.folds(len(full), sample.clusters, metric.seed))
    level, n = metric.confidence_level, len(full)
    results: dict[str, Difference] = {}
    chosen, paired = statistics(full, metric), paired_statistics()
    estimates = estimate(chosen, quant, sample.weights, sample.clusters, minus=full)
    for name, one in chosen.items():
        found = estimates[name]
        now, was = found.sides
        sides: dict[str, Any] = {"baseline": was, "quantized": now}
        if name in CONDITIONAL:
            sides |= {"n_baseline": one.count(full), "n_quantized": one.count(quant)}
        results[name] = summarize(Difference, found, n, sample, level, **sides)
        if name != PRIMARY:
            results[name] = _with_test(results[name], z_test(found, level))
    results["accuracy"] = _at_least_as_wide(results["accuracy"], agresti_min(pairs, level))
    for name, found in estimate(paired, pairs, sample.weights, sample.clusters).items():
        estimates[name] = found
        results[name] = summarize(Difference, found, paired[name].count(pairs), sample, level)
    guessing = estimate({BASELINE_GUESSING: above_guessing()}, full, sample.weights, sample.clusters)
    results[BASELINE_GUESSING] = summarize(Difference, guessing[BASELINE_GUESSING], n, sample, level)
    for name, point in deferral.points(pairs, cost_quantized).items():
        results[name] = results[name].model_copy(update=asdict(point))
    _test_primary(results, quant.true_label_prob - full.true_label_prob, sample, level, alpha)
    results["correct_to_wrong"] = _with_test(results["correct_to_wrong"], mcnemar(pairs, sample.clusters, level))
    results["temperature"] = _temperature(pairs, sample, level)
    if metric.paper_compat:
        results |= _paper_compat(before, after, sample, level)
    return results, estimates


def _test_primary(results: dict[str, Difference], change: np.ndarray, sample: Sample, level: float, alpha: float) -> None:
    primary = results[PRIMARY]
    if sample.clusters is not None:
        test, (low, high) = cluster_robust_t_test(change, sample.clusters, level, alpha)
        ends = {"ci_low": low, "ci_high": high, "interval": "t, cluster-robust"}
        results[CLUSTER_ROBUST] = _with_test(primary, test, **ends, resampled=f"none: the variance of {sample.unit}")
    results[PRIMARY] = _with_test(primary, paired_t_test(change, sample.weights, sample.clusters, level, alpha))


def _compare_texts(before: pa.Table, after: pa.Table, metric: MetricSettings, alpha: float) -> dict[str, Difference]:
    """Continuations, or whole texts, scored twice. The NLL has a paired t-test; of texts, whose NLL is one sum over another, of
    what each text adds to the difference (linearized: Cochran 1977, 6.4). alpha: of one of the primary tests.
    """
    full, quant = texts.texts(before), texts.texts(after)
    sample, level, n = Sample.of(after, metric), metric.confidence_level, len(full)
    chosen = texts.statistics(full)
    results: dict[str, Difference] = {}
    for name, found in estimate(chosen, quant, sample.weights, sample.clusters, minus=full).items():
        now, was = found.sides
        one = summarize(Difference, found, n, sample, level, baseline=was, quantized=now)
        results[name] = _with_test(one, z_test(found, level))
    (now, moved), (was, by) = (chosen["nll"].value_and_influence(side) for side in (quant, full))
    results["nll"] = _with_test(results["nll"], paired_t_test(now - was + moved - by, None, sample.clusters, level, alpha))
    if full.words is None:
        pairs, paired = texts.TextPairs(full, quant), texts.paired_statistics()
        for name, found in estimate(paired, pairs, sample.weights, sample.clusters).items():
            results[name] = summarize(Difference, found, n, sample, level)
        results["accuracy"] = _at_least_as_wide(results["accuracy"], agresti_min(pairs, level))
        results["correct_to_wrong"] = _with_test(results["correct_to_wrong"], mcnemar(pairs, sample.clusters, level))
        _test_primary(results, quant.true_label_prob - full.true_label_prob, sample, level, alpha)
    return results


def _temperature(pairs: Pairs, sample: Sample, level: float) -> Difference:
    """The mean cross-fitted temperature of both models, each with its interval, and by how much it rose."""

    def fitted(value: float, influence: np.ndarray, least: float) -> Estimate:
        return Estimate(value, standard_error(influence, sample.clusters), None, "influence function", least)

    before, after = (fitted(*side, 0.0) for side in zip(pairs.temperatures, pairs.temperature_influences, strict=True))
    influence = pairs.temperature_influences[1] - pairs.temperature_influences[0]
    return summarize(
        Difference,
        fitted(after.value - before.value, influence, -math.inf),
        len(pairs),
        sample,
        level,
        baseline=before.value,
        baseline_ci=_finite(before.interval(level)),
        quantized=after.value,
        quantized_ci=_finite(after.interval(level)),
    )


def _finite(interval: Interval) -> Interval | None:
    return interval if all(map(math.isfinite, interval)) else None


def _at_least_as_wide(one: Difference, other: Interval) -> Difference:
    """The wider ends of two intervals: resampling cannot see flips that did not happen, proportions cannot see clusters."""
    ends = {
        "ci_low": other[0] if one.ci_low is None else min(one.ci_low, other[0]),
        "ci_high": other[1] if one.ci_high is None else max(one.ci_high, other[1]),
    }
    return one.model_copy(update=ends | {"interval": f"{one.interval}, at least as wide as Agresti–Min"})


def _paper_compat(before: pa.Table, after: pa.Table, sample: Sample, level: float) -> dict[str, Difference]:
    """The study's numbers of both runs, and its t-test: of full − quantized, the other way round than everything else here."""
    was, now = paper_compat.measure(before), paper_compat.measure(after)
    kept = len(paper_compat.kept(after))
    results = {
        f"paper_compat/{name}": summarize(Difference, one, kept, sample, level, baseline=was[name], quantized=now[name])
        for name, one in paper_intervals.estimates(after, sample.weights, sample.clusters, minus=before).items()
    }
    difference = paper_compat.gold_probability(before) - paper_compat.gold_probability(after)
    test = paired_t_test(difference, None, None, 0.95, 0.01)
    results["paper_compat/conf_true"] = _with_test(results["paper_compat/conf_true"], test, family="the study's own")
    return results
