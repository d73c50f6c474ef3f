"""Full precision against quantized on the very same questions: paired differences, tests, flips, harm, repair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bitsure.config import Metric
from bitsure.errors import UserError
from bitsure.metrics import (
    MACRO,
    Sample,
    above_guessing,
    entry,
    macro_average,
    number,
    paper_compat,
    paper_intervals,
    repair,
    statistics,
)
from bitsure.metrics.confidence import questions
from bitsure.metrics.pairs import DEFERRED, STRATA, Pairs
from bitsure.metrics.significance import (
    agresti_min,
    benjamini_hochberg,
    cluster_robust_t_test,
    holm,
    mcnemar,
    paired_t_test,
    z_test,
)
from bitsure.metrics.statistics import Estimate, Sums, estimate, mean, standard_error
from bitsure.records import Join, Records, by_task, join

PRIMARY = "true_label_prob"
BASELINE_GUESSING = "baseline_accuracy_above_guessing"
CLUSTER_ROBUST = f"{PRIMARY}_cluster_robust"
# each model's over its own right or wrong answers, so that the difference also holds what moved between the two
CONDITIONAL = ("confidence_correct", "confidence_wrong")
DEFERRALS = tuple(f"{share:.0%}".replace("%", "_percent") for share in DEFERRED)


def compare(
    baseline: Records,
    quantized: Records,
    metric: Metric,
    bits_per_weight: float | None = None,
    noisy: Sequence[Records] = (),
) -> dict[str, dict[str, dict]]:
    """comparison.json: {task: {metric: {value, ci_low, ci_high, n, …}}} where value is quantized − baseline.

    true_label_prob carries the primary test: the study's paired two-sided t-test, adjusted by Holm over the tasks. All
    else is exploratory, adjusted by Benjamini–Hochberg over all of it; so is the cluster-robust t-test, which stands beside the
    study's where questions come in clusters, as that one takes them all for independent. Raises UserError if no question of
    the two runs is the same.

    bits_per_weight: of the quantized model, if known, for the cost of deferral. noisy: records of the noise control, one for
    each seed; they give `harm_slope` its test and each task the entries `noise_control/…`.
    """
    joined = join(baseline, quantized)
    cost = repair.cost_of_quantized(metric.quantized_cost, bits_per_weight)
    results, estimates = {}, {}
    full, quant = by_task(joined.baseline), by_task(joined.quantized)
    for task, found in quant.items():
        results[task], estimates[task] = _compare_task(full[task], found, metric, metric.alpha / len(quant), cost)
    if noisy:
        _add_control(results, joined, noisy, metric)
    for task, p_adjusted in zip(results, holm([results[task][PRIMARY]["p_value"] for task in results]), strict=True):
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


def _add_control(results: dict[str, dict[str, dict]], joined: Join, noisy: Sequence[Records], metric: Metric) -> None:
    from bitsure import control

    runs = [join(joined.baseline, one) for one in noisy]
    if any(run.only_baseline for run in runs):
        raise UserError("The noise control was not asked all the questions that are compared. Score it again.")
    full, noise = by_task(joined.baseline), [by_task(run.quantized) for run in runs]
    for task, found in results.items():
        around = control.noise_control(full[task], [run[task] for run in noise], metric)
        found["harm_slope"] |= control.slope_test(found["harm_slope"]["value"], around)
        found |= around


def was_compared(values: dict[str, dict]) -> bool:
    """Whether a task of comparison.json has more than counts."""
    return PRIMARY in values


def _counts(task: str, joined_questions: int, joined: Join) -> dict[str, dict]:
    counts = {
        "questions_joined": joined_questions,
        "questions_only_baseline": joined.only_baseline.get(task, 0),
        "questions_only_quantized": joined.only_quantized.get(task, 0),
    }
    return {name: number(count, None, None, count) for name, count in counts.items()}


def _compare_task(
    before, after, metric: Metric, alpha: float, cost_quantized: float
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
    for k, name in enumerate(DEFERRALS):
        results[f"deferral_accuracy_{name}"] |= _deferral(pairs, k, cost_quantized)
    change = quant.true_label_prob - full.true_label_prob
    if sample.clusters is not None:
        results[CLUSTER_ROBUST] = results[PRIMARY] | cluster_robust_t_test(change, sample.clusters, level)
        results[CLUSTER_ROBUST] |= {"interval": "t, cluster-robust", "resampled": f"none: the variance of {sample.unit}"}
    results[PRIMARY] |= paired_t_test(change, sample.weights, sample.clusters, level, alpha)
    results["correct_to_wrong"] |= mcnemar(pairs, sample.clusters, level)
    results["temperature"] = _temperature(pairs, sample, level)
    if metric.paper_compat:
        results |= _paper_compat(before, after, sample, level)
    return results, estimates


def paired_statistics() -> dict[str, Sums]:
    """What needs both models' answers to a question. Harm is mean δ, instability the standard deviation of δ, by stratum."""
    found = {
        "flip_rate": mean(lambda p: p.flipped),
        "correct_to_wrong": mean(lambda p: p.lost),
        "wrong_to_correct": mean(lambda p: p.won),
        "kl_divergence": mean(lambda p: p.kl_divergence),
        "jensen_shannon_divergence": mean(lambda p: p.jensen_shannon),
        "jensen_shannon_distance": mean(lambda p: np.sqrt(p.jensen_shannon)),
        "harm": mean(lambda p: p.log_odds_change, among=lambda p: p.has_odds),
        "instability": _deviation(lambda p: p.has_odds),
        "harm_slope": _slope(),
        "nll_mended_by_temperature": mean(
            lambda p: p.quantized.nll - p.quantized_at_own_temperature.nll - p.full.nll + p.full_at_own_temperature.nll
        ),
        "nll_beyond_temperature": mean(lambda p: p.quantized_at_own_temperature.nll - p.full_at_own_temperature.nll),
        "nll_saved_by_own_temperature": mean(lambda p: p.quantized.nll - p.quantized_at_own_temperature.nll),
        "nll_saved_by_full_temperature": mean(lambda p: p.quantized.nll - p.quantized_at_full_temperature.nll),
    }
    for k in range(STRATA):
        inside = lambda p, k=k: (p.stratum == k) * p.has_odds  # noqa: E731
        found[f"harm_stratum_{k + 1}"] = mean(lambda p: p.log_odds_change, among=inside)
        found[f"instability_stratum_{k + 1}"] = _deviation(inside)
    for k, name in enumerate(DEFERRALS):
        found[f"deferral_accuracy_{name}"] = mean(lambda p, k=k: p.quantized.correct + p.deferred[:, k] * p.better)
        found[f"deferral_gain_{name}"] = _deferral_gain(k)
    return found


def _deferral_gain(k: int) -> Sums:
    """The accuracy of deferring the least sure questions, less that of deferring as many at random: a covariance."""

    def features(pairs: Pairs) -> np.ndarray:
        chosen = pairs.deferred[:, k].astype(float)
        return np.stack([chosen * pairs.better, chosen, pairs.better, np.ones(len(pairs))], axis=1)

    def of(sums: np.ndarray) -> np.ndarray:
        both, chosen, better, n = np.moveaxis(sums, -1, 0)
        return both / n - chosen / n * better / n

    return Sums(features, of)


def _deferral(pairs: Pairs, k: int, cost_quantized: float) -> dict[str, float]:
    """Of one point of the deferral curve: the share that was deferred, what an answer costs on average (all questions are
    first asked of the quantized model; one of the full model costs 1), and the accuracy if as many were deferred at random.
    """
    share = float(pairs.deferred[:, k].mean())
    by_chance = float(pairs.quantized.correct.mean() + share * pairs.better.mean())
    return {"share": share, "cost": cost_quantized + share, "random_accuracy": by_chance}


def _deviation(among) -> Sums:
    """The standard deviation of δ where `among` is 1."""

    def features(pairs: Pairs) -> np.ndarray:
        inside, change = among(pairs), pairs.log_odds_change
        return np.stack([inside, inside * change, inside * change**2], axis=1)

    def of(sums: np.ndarray) -> np.ndarray:
        n = sums[..., 0]
        return np.sqrt(np.maximum(sums[..., 2] / n - (sums[..., 1] / n) ** 2, 0.0))

    return Sums(features, of, least=0.0, among=among)


def _slope() -> Sums:
    """Least-squares slope of δ on the full model's certainty (0 … 1): above 0 where unsure questions are hit harder.

    Its null value is not 0 but the slope of noise of the same size: it has a test where there is a noise control.
    """

    def features(pairs: Pairs) -> np.ndarray:
        x, y = pairs.certainty, pairs.log_odds_change
        return np.stack([np.ones(len(pairs)), x, y, x * y, x * x], axis=1) * pairs.has_odds[:, None]

    def of(sums: np.ndarray) -> np.ndarray:
        n, x, y, xy, xx = np.moveaxis(sums, -1, 0)
        spread = n * xx - x * x
        return np.where(spread > 1e-9 * n * n, (n * xy - x * y) / spread, np.nan)

    return Sums(features, of)


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
