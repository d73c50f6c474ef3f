"""Every name that a run writes is described, with its unit and range; docs/metrics.md lists them."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

from bitsure.comparison import compare
from bitsure.metrics import measure
from bitsure.metrics.answer_positions import position_metrics
from bitsure.metrics.divergence import TokensAtRisk, token_divergence_metrics
from bitsure.metrics.fidelity import TokenPairs, fidelity_metrics, percentiles
from bitsure.metrics.metric_names import BASELINE_NLL_BELOW_GUESSING, CORRELATION, LN_PERPLEXITY_RATIO, PERPLEXITY_RATIO
from bitsure.metrics.metric_registry import (
    COMPARISON_ONLY,
    METRICS,
    METRICS_ONLY,
    ONE_MODEL,
    PAPER_METRICS,
)
from bitsure.metrics.next_token import ScoredTokens, next_token_metrics
from bitsure.metrics.preference import preference_metrics
from bitsure.metrics.text_metrics import TextSet, text_metrics
from bitsure.records.answer_units import answer_units
from tests.builders.answers import paired_runs
from tests.builders.records import record
from tests.builders.settings import METRIC
from tests.builders.written import written

OF_TEXTS = (BASELINE_NLL_BELOW_GUESSING, PERPLEXITY_RATIO, LN_PERPLEXITY_RATIO, CORRELATION)
SETTINGS = dataclasses.replace(METRIC, paper_compat=True, resamples=100)


def task_kinds():
    """Return records in full precision and quantized of each kind of task: together they have every metric."""
    kinds = []
    for shift in (0.0, 0.3):
        several = [record([-1 - shift, -2, -3], gold=[0, i % 2 + 1], doc_id=i, task="several") for i in range(40)]
        fixed = [
            record([-1 - shift, -1.5], gold=i % 2, doc_id=i, task="fixed", choices=["no", "yes"], cluster=f"c{i // 2}")
            for i in range(40)
        ]
        three = [record([-1 - shift, -1.5, -2], gold=i % 3, doc_id=i, task="three") for i in range(40)]
        twin = [dataclasses.replace(row, task="three@typos", prompt_hash=f"twin {row.prompt_hash}") for row in three]
        # confidences of 5, 15, … 95%, so that every bin of them holds a question
        chances = np.array([[top, *[(1 - top) / 29] * 29] for top in np.arange(0.05, 1, 0.1)])
        many = [record(np.log(row) - shift, gold=0, doc_id=i, task="many") for i, row in enumerate(chances)]
        found = [record([-1 - shift, -1.5], doc_id=i, task="found", length=100, depth=0.5) for i in range(40)]
        kinds.append(several + fixed + three + twin + many + found)
    return kinds


def test_every_metric_of_a_run_and_a_comparison_is_described():
    full, quantized = task_kinds()
    noisy = [quantized, full]
    measured = {described(name) for values in measure(quantized, SETTINGS).values() for name in values}
    compared = {described(name) for values in compare(full, quantized, SETTINGS, noisy=noisy).values() for name in values}
    assert measured <= {*ONE_MODEL, *PAPER_METRICS, *METRICS_ONLY}
    assert {name.removeprefix("noise_control/") for name in compared} <= {*ONE_MODEL, *PAPER_METRICS, *COMPARISON_ONLY}
    written = measured | compared | names_without_choices() | names_of_tokens() | names_of_answers() | {*OF_TEXTS}
    assert {*METRICS} - written == set()  # nothing is described that is not written


def described(name):
    """Return the name under which a metric is described: one stands for all lengths and depths."""
    return re.sub(r"_length_100_depth_50$", "_length_L_depth_D", name)


def test_every_metric_of_continuations_and_texts_is_described():
    assert names_without_choices() <= {*ONE_MODEL}
    assert names_of_tokens() <= {*ONE_MODEL, *COMPARISON_ONLY}


def names_of_answers() -> set[str]:
    drawn = [["4", "5"], ["5", "5"]]
    answers = answer_units(written(["4", "5"], [True, False], [[-0.1], [-0.2, -0.3]], drawn=drawn, p_true=[0.5, 0.1]))
    tokens = TokensAtRisk((np.arange(10) + 0.5) / 10, np.zeros(10), np.arange(10))  # some in every bin
    compared = {name for values in compare(answers, answers, SETTINGS).values() for name in values}
    along = {*token_divergence_metrics(tokens), *position_metrics(np.arange(2**13)), *preference_metrics()}
    return {name for values in measure(answers, SETTINGS).values() for name in values} | compared | along


def names_without_choices() -> set[str]:
    one = np.ones(1)
    continuation, text = TextSet(-one, None, one, None, None), TextSet(-one, one, one, one, one)
    return {*text_metrics(continuation), *text_metrics(text)}


def names_of_tokens() -> set[str]:
    n = 40
    tokens = ScoredTokens(np.full(n, -1.0), np.zeros(n), (np.arange(n) + 0.5) / n, np.ones(n))  # some in every bin
    pairs = TokenPairs(tokens, tokens, np.ones(n))
    return {*next_token_metrics(tokens, METRIC), *fidelity_metrics(pairs), *percentiles(pairs, np.arange(n))}


def test_values_lie_in_the_range_that_is_described():
    full, quantized, _ = paired_runs(60)
    for name, measured in measure(full, METRIC)["t"].items():
        low, high = bounds(METRICS[name].range)
        assert low <= measured.value <= high, name
    for name, difference in compare(full, quantized, METRIC)["t"].items():
        if name in COMPARISON_ONLY:
            low, high = bounds(METRICS[name].range)
            assert low <= difference.value <= high, name


def bounds(text: str) -> tuple[float, float]:
    """Return a range such as [0, ln K] of questions with two choices as numbers."""
    numbers = {"0": 0, "1": 1, "2": 2, "∞": math.inf, "1/K": 0.5, "K": 2, "ln K": math.log(2), "1/4": 0.25, "…": math.inf}
    parts = re.split(", ", text.strip("[]()"))
    low, high = (-numbers[part[1:]] if part.startswith("−") else numbers[part] for part in (parts[0], parts[-1]))
    return low, high
