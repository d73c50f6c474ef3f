"""metrics.json and comparison.json: numbers with their intervals and tests, by task and metric."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator

from bitsure.results.result import Integer, Result

MACRO = "macro_average"  # the task that stands for the mean over tasks
Interval: TypeAlias = tuple[float, float]


def _none_unless_finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number: TypeAlias = Annotated[float | None, BeforeValidator(_none_unless_finite)]
"""A number, or None where it does not exist: NaN and infinity become None, since JSON has neither."""
Count: TypeAlias = Annotated[Integer | float | None, BeforeValidator(_none_unless_finite)]
"""The same, which may also be a whole number."""


class Measurement(Result):
    """One number of one task: in metrics.json, of one run."""

    value: Count
    """The metric, in its own unit; null where the number does not exist, such as the confidence of no wrong answer."""
    ci_low: Number
    """The interval's lower end, in the metric's unit, at `metric.confidence_level`; null where there is no interval."""
    ci_high: Number
    """The interval's upper end, in the metric's unit; null where there is no interval."""
    n: Integer
    """How many questions the number is taken over (over tasks: how many tasks; of the noise control: how many seeds)."""
    standard_error: Number = None
    """The standard error, in the metric's unit; null where it does not exist."""
    token_standard_error: Number = None
    """The standard error if a text's tokens were independent, as llama-perplexity prints it; absent of all other numbers."""
    interval: str | None = None
    """How the interval was made, such as `percentile bootstrap`; or `none:` and why there is none."""
    resampled: str | None = None
    """What was resampled for the interval: questions, clusters of questions, noise seeds."""
    n_clusters: int | None = None
    """How many clusters the questions come in; absent where every question is alone."""


class Difference(Measurement):
    """One number of one task in comparison.json: quantized − full precision, on the same questions, with its test."""

    baseline: Number = None
    """The metric in full precision."""
    baseline_ci: Interval | None = None
    """The interval of `baseline`; null where there is none."""
    quantized: Number = None
    """The metric of the quantized model."""
    quantized_ci: Interval | None = None
    """The interval of `quantized`; null where there is none."""
    n_baseline: int | None = None
    """Questions behind `baseline`, where each model is measured over its own right or wrong answers."""
    n_quantized: int | None = None
    """Questions behind `quantized`, where each model is measured over its own right or wrong answers."""
    share: float | None = None
    """Deferral: the share of questions that went to the full model, in [0, 1]."""
    cost: float | None = None
    """Deferral: the mean cost of an answer, where an answer of the full model costs 1."""
    random_accuracy: float | None = None
    """Deferral: the accuracy of deferring as many questions at random, in [0, 1]."""
    test: str | None = None
    """The test that was made; absent where none was."""
    statistic: int | float | None = None
    """The test's statistic; null where the differences do not vary."""
    p_value: float | None = None
    """The two-sided p-value before adjustment, in [0, 1]."""
    effect: str | None = None
    """What `effect_size` is, such as `Cohen's d_z`."""
    effect_size: float | None = None
    """The effect size, without unit; null where it does not exist."""
    effect_size_ci: Interval | None = None
    """The interval of the effect size; null where there is none."""
    smallest_detectable: float | None = None
    """The change, in the metric's unit, that the test finds with 80% power at its α."""
    variance_error: Number = None
    """The standard error of `standard_error`², as a share of it; of what a verdict is about."""
    chance_share: float | None = None
    """The share of `standard_error`² that falls with the square of the number of questions; of what a verdict is about."""
    family: str | None = None
    """The family it is adjusted within: `primary` (Holm), `exploratory` (Benjamini–Hochberg), `the study's own` (none)."""
    p_adjusted: float | None = None
    """The p-value adjusted within its family, in [0, 1]."""
    significant: bool | None = None
    """Whether `p_adjusted` is below `metric.alpha`; primary tests only."""
    seeds: list[float | None] | None = None
    """Noise control: the number for each seed; null where a seed has none."""

    @property
    def has_baseline(self) -> bool:
        """Whether this is one model's value less another's, and not a number of both together."""
        return "baseline" in self.model_fields_set


MetricsByTask: TypeAlias = dict[str, dict[str, Measurement]]
"""metrics.json: task → metric → number."""
Comparison: TypeAlias = dict[str, dict[str, Difference]]
"""comparison.json: task → metric → difference."""
