"""The noise control: does a quantizer do more to a task than noise whose output error is as large?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from bitsure.config.metric import MetricSettings
from bitsure.metrics.choice_metrics import choice_metrics
from bitsure.metrics.confidence_shift import LOG_ODDS_SHIFT, PROBABILITY_SHIFT, shift_metrics
from bitsure.metrics.fidelity import PROBABILITY_CHANGE, fidelity_metrics, token_pairs
from bitsure.metrics.metric_names import ECE, NOISE_CONTROL, PRIMARY
from bitsure.metrics.pair_metrics import flip_metrics, pair_metrics
from bitsure.metrics.question_pairs import STRATA, QuestionPairs
from bitsure.metrics.questions import question_set
from bitsure.metrics.significance import SignificanceTest
from bitsure.metrics.text_metrics import text_metrics, text_set
from bitsure.metrics.written_answers import WrittenPairs, answer_metrics, answer_set, open_answer_metrics
from bitsure.records.answer_units import is_open, is_written
from bitsure.records.record import Records, has_choices, to_table
from bitsure.records.text_units import has_tokens
from bitsure.results.measurement import Difference
from bitsure.results.verdict import Place

DIFFERENCES = ("accuracy", "confidence", "true_label_prob", "nll", ECE)
HARM, INSTABILITY = (tuple(f"{name}_stratum_{k + 1}" for k in range(STRATA)) for name in ("harm", "instability"))
SIZES = {"kl_divergence": "mean KL", "instability": "standard deviation of the change in log-odds"}
SIZE_FACTOR = 1.25  # beyond which the slope's test claims too much: .10 to .24 at .05 for noise half to two thirds as large
PAIRED = ("flip_rate", "kl_divergence", "harm", "instability", "harm_slope", *HARM, *INSTABILITY)
HIGHER_IS_BETTER = {
    "accuracy",
    PRIMARY,
    "same_top_token",
    PROBABILITY_CHANGE,
    "harm",
    *HARM,
    *PROBABILITY_SHIFT,
    *LOG_ODDS_SHIFT,
}
LOWER_IS_BETTER = {"nll", ECE, "flip_rate", "kl_divergence", f"{PROBABILITY_CHANGE}_rms", "instability", *INSTABILITY}


def noise_control(baseline: Records, noisy: Sequence[Records], settings: MetricSettings) -> dict[str, Difference]:
    """Return what noise does to one task: the mean and range over seeds of DIFFERENCES, PAIRED and the shifts by confidence.

    Nothing is resampled. Tasks without choices have fewer of the DIFFERENCES and none of the others.

    Args:
        baseline: The task's records of full precision.
        noisy: The records of the same questions, one set for each seed.
        settings: How records become numbers.
    """
    if is_written(to_table(baseline)):
        return _ranges(_of_answers(to_table(baseline), [to_table(records) for records in noisy], settings))
    if not has_choices(to_table(baseline)):
        return _ranges(_of_texts(baseline, noisy))
    full = question_set(baseline, settings.normalization)
    fold = np.zeros(len(full), dtype=int)  # nothing here is fitted
    metrics, of_pairs, shifts = choice_metrics(full, settings), pair_metrics(), shift_metrics(full)
    paired = {name: of_pairs[name] for name in PAIRED} | shifts
    values: dict[str, list[float]] = {name: [] for name in (*DIFFERENCES, *paired)}
    for records in noisy:
        after = question_set(records, settings.normalization)
        pairs = QuestionPairs(full, after, fold)
        for name in DIFFERENCES:
            values[name].append(float(metrics[name].value(after) - metrics[name].value(full)))
        for name, metric in paired.items():
            values[name].append(float(metric.value(pairs)))
    return _ranges(values)


def slope_test(slope: float | None, seeds: Sequence[float | None]) -> SignificanceTest | None:
    """Return the one-sided test that harm rises with uncertainty no more than noise makes it.

    It holds for noise of the quantizer's size only (`size_mismatch`).

    Args:
        slope: The quantizer's harm_slope T; None where it does not exist.
        seeds: The noise control's slopes T_s, one for each of S seeds; None where one does not exist.

    Returns:
        The test, with p = (1 + #{T_s ≥ T}) / (1 + S); None where a slope does not exist.

    Reference: Davison & Hinkley 1997, equation 4.11, for Monte Carlo tests.
    """
    slopes = [of_seed for of_seed in seeds if of_seed is not None]
    if slope is None or len(slopes) < len(seeds):
        return None
    return SignificanceTest(
        test=f"noise control of {len(slopes)} seeds",
        statistic=slope,
        p_value=(1 + sum(of_seed >= slope for of_seed in slopes)) / (1 + len(slopes)),
        effect="slope less the noise's mean",
        effect_size=slope - float(np.mean(slopes)),
        effect_size_ci=(slope - max(slopes), slope - min(slopes)),
    )


def size_mismatch(values: Mapping[str, Difference]) -> str | None:
    """Return in words how a noise control differs in size from the quantizer; None where it fits.

    The slope of noise grows with its size, so only noise of the quantizer's own size is a null for the slope. Output errors as
    large in each layer do not ensure that.

    Args:
        values: The task's part of a comparison, with the noise control's entries.
    """
    misfits = []
    for name, words in SIZES.items():
        noise, quantizer = values[f"{NOISE_CONTROL}{name}"].value, values[name].value
        if noise is None or quantizer is None:
            misfits.append(f"its {words} does not exist for every seed")
        elif max(noise, quantizer) > SIZE_FACTOR * min(noise, quantizer):
            misfits.append(f"its {words} is {noise:.3g}, quantization's {quantizer:.3g}")
    return " and ".join(misfits) or None


def place_in_range(name: str, value: float | None, noise: Difference) -> Place | None:
    """Return where a metric's value lies against the range of its noise control; None if either does not exist.

    Outside the range it is better or worse where the metric has a good direction, else above or below.
    """
    if value is None or noise.ci_low is None or noise.ci_high is None:
        return None
    if noise.ci_low <= value <= noise.ci_high:
        return "within"
    is_above = value > noise.ci_high
    if name in HIGHER_IS_BETTER or name in LOWER_IS_BETTER:
        return "better" if is_above == (name in HIGHER_IS_BETTER) else "worse"
    return "above" if is_above else "below"


def _of_answers(baseline: pa.Table, noisy: Sequence[pa.Table], settings: MetricSettings) -> dict[str, list[float]]:
    full, after = answer_set(baseline, settings), [answer_set(records, settings) for records in noisy]
    known = (open_answer_metrics if is_open(baseline) else answer_metrics)(full, settings)
    metrics = {name: metric for name, metric in known.items() if name in DIFFERENCES}
    values = {name: [metric.value(each) - metric.value(full) for each in after] for name, metric in metrics.items()}
    pairs = [WrittenPairs(full, each, np.zeros(len(full), dtype=int)) for each in after]
    return values | {"flip_rate": [flip_metrics()["flip_rate"].value(pair) for pair in pairs]}


def _of_texts(baseline: Records, noisy: Sequence[Records]) -> dict[str, list[float]]:
    full, after = text_set(to_table(baseline)), [text_set(to_table(records)) for records in noisy]
    metrics = {name: metric for name, metric in text_metrics(full).items() if name in DIFFERENCES}
    names = [name for name in DIFFERENCES if name in metrics]
    values = {name: [metrics[name].value(texts) - metrics[name].value(full) for texts in after] for name in names}
    if has_tokens(to_table(baseline)):
        pairs = [token_pairs(to_table(baseline), to_table(records)) for records in noisy]
        known = [of_seed for of_seed in pairs if of_seed is not None]
        if len(known) == len(noisy):
            of_pairs = fidelity_metrics(known[0])
            values |= {name: [metric.value(of_seed) for of_seed in known] for name, metric in of_pairs.items()}
    return values


def _ranges(by_name: dict[str, list[float]]) -> dict[str, Difference]:
    return {
        f"{NOISE_CONTROL}{name}": Difference(
            value=float(np.mean(values)),
            ci_low=float(np.min(values)),  # NaN where one seed has none
            ci_high=float(np.max(values)),
            n=len(values),
            interval="range",
            resampled="noise seeds",
            seeds=[value if math.isfinite(value) else None for value in values],
        )
        for name, values in by_name.items()
    }
