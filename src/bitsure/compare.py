"""Full precision against quantized on the very same questions: paired differences, tests and flips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitsure.config import Metric
from bitsure.metrics import bootstrap, count, entry, mean, measures
from bitsure.metrics.confidence import Questions, questions
from bitsure.records import Join, Record, join

# each model's over its own right or wrong answers, so that the difference also holds what moved between the two
CONDITIONAL = ("confidence_correct", "confidence_wrong")


def compare(baseline: Sequence[Record], quantized: Sequence[Record], metric: Metric) -> dict[str, dict[str, dict]]:
    """comparison.json: {task: {metric: {value, ci_low, ci_high, n, …}}} where value is quantized − baseline.

    true_label_prob carries the primary test: the study's paired two-sided t-test, adjusted by Holm over the tasks. All
    else is exploratory. Raises UserError if no question of the two runs is the same.
    """
    joined = join(baseline, quantized)
    tasks = {task: None for _, record in joined.pairs for task in [record.task]}
    results = {task: _compare_task(task, joined, metric) for task in tasks}
    adjusted = holm([results[task]["true_label_prob"]["p_value"] for task in results])
    for task, p_adjusted in zip(results, adjusted, strict=True):
        results[task]["true_label_prob"] |= {"p_adjusted": p_adjusted, "significant": p_adjusted < metric.alpha}
    return results


def _compare_task(task: str, joined: Join, metric: Metric) -> dict[str, dict]:
    pairs = [pair for pair in joined.pairs if pair[1].task == task]
    full, quant = questions([pair[0] for pair in pairs]), questions([pair[1] for pair in pairs])
    n = len(pairs)
    ones, weights = np.ones((1, n)), bootstrap.resample_weights(n, metric.resamples, metric.seed)
    results = {}
    for name, measure in measures(full.several_gold or quant.several_gold, metric.n_bins).items():
        before, after = float(measure(full, ones)[0]), float(measure(quant, ones)[0])
        low, high = bootstrap.percentile_interval(measure(quant, weights) - measure(full, weights), metric.confidence_level)
        results[name] = entry(after - before, low, high, n, baseline=before, quantized=after)
        if name in CONDITIONAL:
            results[name] |= {"n_baseline": count(full, name), "n_quantized": count(quant, name)}
    results["true_label_prob"] |= paired_t_test(quant.true_label_prob - full.true_label_prob, weights, metric.confidence_level)
    results |= _flips(full, quant, weights, metric.confidence_level)
    for name, n_questions in {
        "questions_joined": n,
        "questions_only_baseline": joined.only_baseline.get(task, 0),
        "questions_only_quantized": joined.only_quantized.get(task, 0),
    }.items():
        results[name] = entry(n_questions, None, None, n_questions)
    return results


def paired_t_test(difference: np.ndarray, weights: np.ndarray, level: float) -> dict:
    """The two-sided paired t-test of a zero mean difference (n,), with Cohen's d_z (mean / standard deviation) and interval.

    Where every difference is the same there is no test: the p-value is 1 if they are all zero, else 0.
    """
    from scipy.stats import ttest_1samp

    if len(difference) < 2 or np.ptp(difference) == 0:
        p_value = 1.0 if len(difference) < 2 or difference[0] == 0 else 0.0
        return {"test": "paired t-test", "statistic": None, "p_value": p_value, "effect_size": None, "effect_size_ci": None}
    statistic, p_value = ttest_1samp(difference, 0.0)
    means = mean(difference, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = means / np.sqrt(mean(difference**2, weights) - means**2)
    return {
        "test": "paired t-test",
        "statistic": float(statistic),
        "p_value": float(p_value),
        "effect_size": float(difference.mean() / difference.std(ddof=1)),
        "effect_size_ci": list(bootstrap.percentile_interval(replicates, level)),
    }


def _flips(full: Questions, quant: Questions, weights: np.ndarray, level: float) -> dict[str, dict]:
    """Shares of the questions whose top choice changed, and whose correctness did; the exact McNemar test of the latter."""
    from scipy.stats import binomtest

    shares = {
        "flip_rate": (full.prediction != quant.prediction).astype(float),
        "correct_to_wrong": full.correct * (1 - quant.correct),
        "wrong_to_correct": (1 - full.correct) * quant.correct,
    }
    results = {
        name: entry(float(x.mean()), *bootstrap.percentile_interval(mean(x, weights), level), len(x))
        for name, x in shares.items()
    }
    lost, won = int(shares["correct_to_wrong"].sum()), int(shares["wrong_to_correct"].sum())
    p_value = float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    results["correct_to_wrong"] |= {"test": "McNemar, exact", "statistic": lost, "p_value": p_value}
    return results


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm (1979), in the order given."""
    order = np.argsort(p_values)
    m = len(p_values)
    adjusted = np.maximum.accumulate([min(1.0, (m - rank) * p_values[i]) for rank, i in enumerate(order)])
    result = np.empty(m)
    result[order] = adjusted
    return result.tolist()
