"""A quantized model against its full-precision self on the same questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from bitsure.base.errors import UserError
from bitsure.comparison.answer_differences import compare_answers, compare_open_answers
from bitsure.comparison.choice_differences import compare_choices
from bitsure.comparison.difference_tests import with_test
from bitsure.comparison.noise_control import noise_control, size_mismatch, slope_test
from bitsure.comparison.text_differences import compare_bytes, compare_texts, has_other_tokens
from bitsure.comparison.twin_differences import twin_differences
from bitsure.config.metric import MetricSettings
from bitsure.metrics.deferral import cost_of_quantized
from bitsure.metrics.metric_names import (
    MACRO,
    NOISE_CONTROL,
    ONLY_BASELINE,
    ONLY_QUANTIZED,
    PRIMARY,
    QUESTIONS_EQUAL,
    QUESTIONS_JOINED,
)
from bitsure.metrics.multiple_testing import benjamini_hochberg, holm
from bitsure.metrics.point_estimate import PointEstimate
from bitsure.metrics.task_results import macro_average
from bitsure.records.answer_units import is_open, is_written
from bitsure.records.equal_records import equal_records
from bitsure.records.joining import Join, join
from bitsure.records.record import Records, by_task, has_choices, is_text
from bitsure.results.measurement import Comparison, Difference


def compare(
    baseline: Records,
    quantized: Records,
    settings: MetricSettings,
    bits_per_weight: float | None = None,
    noisy: Sequence[Records] = (),
    baseline_bits: float | None = None,
) -> Comparison:
    """Return how a quantized model differs from full precision, as in comparison.json: quantized − baseline.

    true_label_prob carries the primary test: the study's paired two-sided t-test, adjusted by Holm over the tasks. (Whole texts
    have no such probability; their NLL is tested.) All other tests are exploratory, adjusted by Benjamini–Hochberg over all of
    them. One of those is the cluster-robust t-test, which stands beside the study's where questions come in clusters, since the
    study's takes them all for independent.

    Args:
        baseline: The records of full precision.
        quantized: Those of the quantized model.
        settings: Bins, normalization, resamples, level, alpha and seed.
        bits_per_weight: Bits of a quantized weight, for the cost of deferral; None if unknown.
        noisy: The records of the noise control, one set for each seed. They give each task the entries
            `noise_control/…`, and `harm_slope` its test where the noise is of the quantizer's size.
        baseline_bits: Bits of a weight of a baseline that is quantized too; None for full precision.

    Raises:
        UserError: If no question of the two runs is the same, or the noise control was asked other questions.
    """
    joined = join(baseline, quantized)
    cost = cost_of_quantized(settings.quantized_cost, bits_per_weight, baseline_bits)
    results: Comparison = {}
    estimates: dict[str, dict[str, PointEstimate]] = {}
    full, quant = by_task(joined.baseline), by_task(joined.quantized)
    primary = [task for task, rows in quant.items() if not is_text(rows) and not is_open(rows)]
    alpha = settings.alpha / max(1, len(primary))  # of one of the primary tests, at least
    for task, rows in quant.items():
        if has_choices(rows):
            results[task], estimates[task] = compare_choices(full[task], rows, settings, alpha, cost)
        elif is_open(rows):
            results[task] = compare_open_answers(full[task], rows, settings)
        elif is_written(rows):
            results[task], estimates[task] = compare_answers(full[task], rows, settings, alpha, cost)
        elif has_other_tokens(full[task], rows):
            results[task] = compare_bytes(full[task], rows, settings)
        else:
            results[task] = compare_texts(full[task], rows, settings, alpha)
    for task, of_twin in twin_differences(full, quant, settings).items():
        results[task] |= of_twin
    if noisy:
        _add_noise_control(results, joined, noisy, settings)
    _adjust(results, primary, settings.alpha)
    for task in dict.fromkeys([*results, *joined.only_baseline, *joined.only_quantized]):
        counts = _counts(task, joined, full, quant)
        results[task] = results.get(task, {}) | counts  # a task without any joined question has its counts alone
    if mean := macro_average(Difference, estimates, results):
        results[MACRO] = mean
    return results


def was_compared(values: Iterable[str]) -> bool:
    """Return whether a task of a comparison has more metrics than its counts."""
    return "nll" in values


def _add_noise_control(results: Comparison, joined: Join, noisy: Sequence[Records], settings: MetricSettings) -> None:
    runs = [join(joined.baseline, records) for records in noisy]
    if any(run.only_baseline for run in runs):
        raise UserError("The noise control was not asked all the questions that are compared. Score it again.")
    full, noise = by_task(joined.baseline), [by_task(run.quantized) for run in runs]
    for task, values in results.items():
        ranges = noise_control(full[task], [run[task] for run in noise], settings)
        values.update(ranges)
        if f"{NOISE_CONTROL}harm_slope" in ranges and not size_mismatch(values):
            slope, seeds = values["harm_slope"], ranges[f"{NOISE_CONTROL}harm_slope"].seeds or ()
            values["harm_slope"] = with_test(slope, slope_test(slope.value, seeds))


def _adjust(results: Comparison, primary: Sequence[str], alpha: float) -> None:
    """Adjust the p-values of the primary tests by Holm, those of all others by Benjamini and Hochberg."""
    by_holm = holm([_p_value(results[task][PRIMARY]) for task in primary])
    for task, adjusted in zip(primary, by_holm, strict=True):
        family = {"family": "primary", "p_adjusted": adjusted, "significant": adjusted < alpha}
        results[task][PRIMARY] = results[task][PRIMARY].model_copy(update=family)
    explored = [
        (values, name)
        for values in results.values()
        for name, difference in values.items()
        if difference.p_value is not None and difference.family is None
    ]
    by_rate = benjamini_hochberg([_p_value(values[name]) for values, name in explored])
    for (values, name), adjusted in zip(explored, by_rate, strict=True):
        values[name] = values[name].model_copy(update={"family": "exploratory", "p_adjusted": adjusted})


def _p_value(difference: Difference) -> float:
    assert difference.p_value is not None  # only tested ones get here
    return difference.p_value


def _counts(task: str, joined: Join, full: Mapping[str, pa.Table], quantized: Mapping[str, pa.Table]) -> dict[str, Difference]:
    rows = quantized.get(task)
    counts = {
        QUESTIONS_JOINED: 0 if rows is None else len(rows),
        QUESTIONS_EQUAL: 0 if rows is None else equal_records(full[task], rows),
        ONLY_BASELINE: joined.only_baseline.get(task, 0),
        ONLY_QUANTIZED: joined.only_quantized.get(task, 0),
    }
    return {name: Difference(value=count, ci_low=None, ci_high=None, n=count) for name, count in counts.items()}
