"""Full precision against quantized on the very same questions: paired differences, tests, flips, harm, repair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bitsure.base.errors import UserError
from bitsure.comparison import noise_control as control
from bitsure.config.schema import MetricSettings
from bitsure.metrics import deferral, paper_compat, paper_intervals, repair, texts
from bitsure.metrics.confidence import questions
from bitsure.metrics.measure import MACRO, Sample, above_guessing, entry, macro_average, number, statistics
from bitsure.metrics.paired_statistics import paired_statistics
from bitsure.metrics.question_pairs import Pairs
from bitsure.metrics.significance import (
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
) -> dict[str, dict[str, dict]]:
    """comparison.json: {task: {metric: {value, ci_low, ci_high, n, …}}} where value is quantized − baseline.

    true_label_prob carries the primary test: the study's paired two-sided t-test, adjusted by Holm over the tasks (whole
    texts have no such probability; what is tested of them is the NLL). All else is exploratory, adjusted by
    Benjamini–Hochberg over all of it; so is the cluster-robust t-test, which stands beside the study's where questions come
    in clusters, as that one takes them all for independent. Raises UserError if no question of the two runs is the same.

    bits_per_weight: of the quantized model, if known, for the cost of deferral. noisy: records of the noise control, one for
    each seed; they give `harm_slope` its test and each task the entries `noise_control/…`.
    """
    joined = join(baseline, quantized)
    cost = deferral.cost_of_quantized(metric.quantized_cost, bits_per_weight)
    results, estimates = {}, {}
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
    for task, p_adjusted in zip(primary, holm([results[task][PRIMARY]["p_value"] for task in primary]), strict=True):
        results[task][PRIMARY] |= {"family": "primary", "p_adjusted": p_adjusted, "significant": p_adjusted < metric.alpha}
    explored = [one for found in results.values() for one in found.values() if "p_value" in one and "family" not in one]
    for one, p_adjusted in zip(explored, benjamini_hochberg([one["p_value"] for one in explored]), strict=True):
        one |= {"family": "exploratory", "p_adjusted": p_adjusted}
    for task in dict.fromkeys([*results, *joined.only_baseline, *joined.only_quantized]):
        results.setdefault(task, {})  # a task of which nothing joined has its counts alone
        results[task] |= _counts(task, len(quant.get(task, ())), joined)
    if len(estimates) > 1:
        results[MACRO] = macro_average(estimates, metric.confidence_level)
    return results


def _add_control(results: dict[str, dict[str, dict]], joined: Join, noisy: Sequence[Records], metric: MetricSettings) -> None:
    runs = [join(joined.baseline, one) for one in noisy]
    if any(run.only_baseline for run in runs):
        raise UserError("The noise control was not asked all the questions that are compared. Score it again.")
    full, noise = by_task(joined.baseline), [by_task(run.quantized) for run in runs]
    for task, found in results.items():
        around = control.noise_control(full[task], [run[task] for run in noise], metric)
        if "harm_slope" in found:
            found["harm_slope"] |= control.slope_test(found["harm_slope"]["value"], around)
        found |= around


def was_compared(values: dict[str, dict]) -> bool:
    """Whether a task of comparison.json has more than counts."""
    return "nll" in values


def _counts(task: str, joined_questions: int, joined: Join) -> dict[str, dict]:
    counts = {
        "questions_joined": joined_questions,
        "questions_only_baseline": joined.only_baseline.get(task, 0),
        "questions_only_quantized": joined.only_quantized.get(task, 0),
    }
    return {name: number(count, None, None, count) for name, count in counts.items()}


def _compare_task(
    before, after, metric: MetricSettings, alpha: float, cost_quantized: float
) -> tuple[dict[str, dict], dict[str, Estimate]]:
    """alpha: of one of the primary tests, at the least."""
    full, quant = (questions(side, metric.normalization) for side in (before, after))
    sample = Sample.of(after, metric)
    pairs = Pairs(full, quant, repair.folds(len(full), sample.clusters, metric.seed))
    level, n = metric.confidence_level, len(full)
    results = {}
    chosen, paired = statistics(full, metric), paired_statistics()
    estimates = estimate(chosen, quant, sample.weights, sample.clusters, minus=full)
    for name, one in chosen.items():
        found = estimates[name]
        now, was = found.sides
        results[name] = entry(found, n, sample, level, baseline=was, quantized=now)
        if name in CONDITIONAL:
            results[name] |= {"n_baseline": one.count(full), "n_quantized": one.count(quant)}
        if name != PRIMARY:
            results[name] |= z_test(found, level)
    results["accuracy"] |= _at_least_as_wide(results["accuracy"], agresti_min(pairs, level))
    for name, found in estimate(paired, pairs, sample.weights, sample.clusters).items():
        estimates[name] = found
        results[name] = entry(found, paired[name].count(pairs), sample, level)
    guessing = estimate({BASELINE_GUESSING: above_guessing()}, full, sample.weights, sample.clusters)
    results[BASELINE_GUESSING] = entry(guessing[BASELINE_GUESSING], n, sample, level)
    for name, point in deferral.points(pairs, cost_quantized).items():
        results[name] |= point
    _test_primary(results, quant.true_label_prob - full.true_label_prob, sample, level, alpha)
    results["correct_to_wrong"] |= mcnemar(pairs, sample.clusters, level)
    results["temperature"] = _temperature(pairs, sample, level)
    if metric.paper_compat:
        results |= _paper_compat(before, after, sample, level)
    return results, estimates


def _test_primary(results: dict[str, dict], change: np.ndarray, sample: Sample, level: float, alpha: float) -> None:
    if sample.clusters is not None:
        results[CLUSTER_ROBUST] = results[PRIMARY] | cluster_robust_t_test(change, sample.clusters, level, alpha)
        results[CLUSTER_ROBUST] |= {"interval": "t, cluster-robust", "resampled": f"none: the variance of {sample.unit}"}
    results[PRIMARY] |= paired_t_test(change, sample.weights, sample.clusters, level, alpha)


def _compare_texts(before, after, metric: MetricSettings, alpha: float) -> dict[str, dict]:
    """Continuations, or whole texts, scored twice. The NLL has a paired t-test; of texts, whose NLL is one sum over another, of
    what each text adds to the difference (linearized: Cochran 1977, 6.4). alpha: of one of the primary tests.
    """
    full, quant = texts.texts(before), texts.texts(after)
    sample, level, n = Sample.of(after, metric), metric.confidence_level, len(full)
    chosen, results = texts.statistics(full), {}
    for name, found in estimate(chosen, quant, sample.weights, sample.clusters, minus=full).items():
        now, was = found.sides
        results[name] = entry(found, n, sample, level, baseline=was, quantized=now) | z_test(found, level)
    (now, moved), (was, by) = (chosen["nll"].value_and_influence(side) for side in (quant, full))
    results["nll"] |= paired_t_test(now - was + moved - by, None, sample.clusters, level, alpha)
    if full.words is None:
        pairs, paired = texts.TextPairs(full, quant), texts.paired_statistics()
        for name, found in estimate(paired, pairs, sample.weights, sample.clusters).items():
            results[name] = entry(found, n, sample, level)
        results["accuracy"] |= _at_least_as_wide(results["accuracy"], agresti_min(pairs, level))
        results["correct_to_wrong"] |= mcnemar(pairs, sample.clusters, level)
        _test_primary(results, quant.true_label_prob - full.true_label_prob, sample, level, alpha)
    return results


def _temperature(pairs: Pairs, sample: Sample, level: float) -> dict:
    """The mean cross-fitted temperature of both models, each with its interval, and by how much it rose."""

    def fitted(value: float, influence: np.ndarray, least: float) -> Estimate:
        return Estimate(value, standard_error(influence, sample.clusters), None, "influence function", least)

    sides = [fitted(value, one, 0.0) for value, one in zip(pairs.temperatures, pairs.temperature_influences, strict=True)]
    before, after = pairs.temperature_influences
    found = entry(fitted(sides[1].value - sides[0].value, after - before, -math.inf), len(pairs), sample, level)
    for name, one in zip(("baseline", "quantized"), sides, strict=True):
        low, high = one.interval(level)
        found |= {name: one.value, f"{name}_ci": [low, high] if math.isfinite(low + high) else None}
    return found


def _at_least_as_wide(one: dict, other: tuple[float, float]) -> dict:
    """The wider ends of two intervals: resampling cannot see flips that did not happen, proportions cannot see clusters."""
    return {
        "ci_low": min(one["ci_low"], other[0]),
        "ci_high": max(one["ci_high"], other[1]),
        "interval": f"{one['interval']}, at least as wide as Agresti–Min",
    }


def _paper_compat(before, after, sample: Sample, level: float) -> dict[str, dict]:
    """The study's numbers of both runs, and its t-test: of full − quantized, the other way round than everything else here."""
    was, now = paper_compat.measure(before), paper_compat.measure(after)
    found = paper_intervals.estimates(after, sample.weights, sample.clusters, minus=before)
    results = {
        f"paper_compat/{name}": entry(
            one, len(paper_compat.kept(after)), sample, level, baseline=was[name], quantized=now[name]
        )
        for name, one in found.items()
    }
    difference = paper_compat.gold_probability(before) - paper_compat.gold_probability(after)
    results["paper_compat/conf_true"] |= paired_t_test(difference, None, None, 0.95, 0.01) | {"family": "the study's own"}
    return results
