"""The noise control: does a quantizer do more to a task than noise whose output error is as large?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bitsure.config.schema import MetricSettings
from bitsure.metrics import texts
from bitsure.metrics.confidence import questions
from bitsure.metrics.measure import ECE, statistics
from bitsure.metrics.paired_statistics import paired_statistics
from bitsure.metrics.question_pairs import STRATA, Pairs
from bitsure.metrics.significance import SignificanceTest
from bitsure.records.record import Records, has_choices, to_table
from bitsure.results.measurement import Difference
from bitsure.results.verdict import Place

PREFIX = "noise_control/"
DIFFERENCES = ("accuracy", "confidence", "true_label_prob", "nll", ECE)
STRATIFIED = tuple(f"{name}_stratum_{k + 1}" for name in ("harm", "instability") for k in range(STRATA))
PAIRED = ("flip_rate", "kl_divergence", "harm", "instability", "harm_slope", *STRATIFIED)


def noise_control(baseline: Records, noisy: Sequence[Records], metric: MetricSettings) -> dict[str, Difference]:
    """What noise does to one task: for each of DIFFERENCES and PAIRED the mean over seeds, between the least and the most.

    baseline, noisy: the same questions' records, of full precision and one for each seed. The interval is the range over
    the seeds; nothing is resampled. What has no choices has fewer of the DIFFERENCES and none of PAIRED.
    """
    if not has_choices(to_table(baseline)):
        full, chosen = texts.texts(to_table(baseline)), texts.statistics(texts.texts(to_table(baseline)))
        after = [texts.texts(to_table(one)) for one in noisy]
        names = [name for name in DIFFERENCES if name in chosen]
        return _ranges({name: [chosen[name].value(one) - chosen[name].value(full) for one in after] for name in names})
    full = questions(baseline, metric.normalization)
    fold = np.zeros(len(full), dtype=int)  # nothing here is fitted
    chosen, paired = statistics(full, metric), paired_statistics()
    found: dict[str, list[float]] = {name: [] for name in (*DIFFERENCES, *PAIRED)}
    for one in noisy:
        after = questions(one, metric.normalization)
        pairs = Pairs(full, after, fold)
        for name in DIFFERENCES:
            found[name].append(float(chosen[name].value(after) - chosen[name].value(full)))
        for name in PAIRED:
            found[name].append(float(paired[name].value(pairs)))
    return _ranges(found)


def _ranges(found: dict[str, list[float]]) -> dict[str, Difference]:
    return {
        f"{PREFIX}{name}": Difference(
            value=float(np.mean(values)),
            ci_low=float(np.min(values)),  # NaN where one seed has none
            ci_high=float(np.max(values)),
            n=len(values),
            interval="range",
            resampled="noise seeds",
            seeds=[value if math.isfinite(value) else None for value in values],
        )
        for name, values in found.items()
    }


def slope_test(slope: float | None, seeds: Sequence[float | None]) -> SignificanceTest | None:
    """The test that harm rises with uncertainty no more than noise makes it: p = (1 + #{T_s ≥ T}) / (1 + S), one-sided.

    slope: T, the quantizer's harm_slope; seeds: the T_s, the noise control's slopes. None where either is not defined.
    """
    slopes = [one for one in seeds if one is not None]
    if slope is None or len(slopes) < len(seeds):
        return None
    return SignificanceTest(
        test=f"noise control of {len(slopes)} seeds",
        statistic=slope,
        p_value=(1 + sum(one >= slope for one in slopes)) / (1 + len(slopes)),
        effect="slope less the noise's mean",
        effect_size=slope - float(np.mean(slopes)),
        effect_size_ci=(slope - max(slopes), slope - min(slopes)),
    )


def place(value: float | None, control: Difference) -> Place | None:
    """Where a value lies against the range of its noise control: below, within or above; None if either does not exist."""
    if value is None or control.ci_low is None or control.ci_high is None:
        return None
    return "below" if value < control.ci_low else "above" if value > control.ci_high else "within"
