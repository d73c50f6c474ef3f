"""Say in words how far the right answer shifted where full precision is least sure, and where it is surest."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.comparison.noise_control import size_mismatch
from bitsure.metrics.confidence_shift import BINS, LOG_ODDS_SHIFT, PROBABILITY_SHIFT
from bitsure.metrics.estimation import FEWEST
from bitsure.metrics.metric_names import NOISE_CONTROL
from bitsure.report import tables
from bitsure.results import Difference


def shift_sentence(task: str, values: Mapping[str, Difference]) -> str:
    """Return how the right answer's probability and log-odds moved in the first and the last bin of confidence.

    Bins count that hold at least `FEWEST` questions.

    Args:
        task: The task's name.
        values: The task's part of a comparison.
    """
    bins = filled_bins(values, FEWEST)
    if len(bins) < 2:
        return f"{task}: fewer than two bins of confidence hold {FEWEST} questions."
    unsure, sure = bins[0], bins[-1]
    low, high = (values[PROBABILITY_SHIFT[k]] for k in (unsure, sure))
    sentence = (
        f"{task}: the right answer's probability {_moved(low)} where full precision is {percent_of_bin(unsure)} sure "
        f"({low.n:,} questions) and {_moved(high)} where it is {percent_of_bin(sure)} sure ({high.n:,}). In log-odds (nats), "
        f"on which the softmax's slope has no effect, it {_moved(values[LOG_ODDS_SHIFT[unsure]])} and "
        f"{_moved(values[LOG_ODDS_SHIFT[sure]])}."
    )
    if f"{NOISE_CONTROL}{LOG_ODDS_SHIFT[unsure]}" in values:
        probability, log_odds = (
            " and ".join(_range(values[f"{NOISE_CONTROL}{names[k]}"]) for k in (unsure, sure))
            for names in (PROBABILITY_SHIFT, LOG_ODDS_SHIFT)
        )
        sentence += f" Noise moves the probability by {probability}, the log-odds by {log_odds} nats."
        if mismatch := size_mismatch(values):
            sentence += f" It is no control, for {mismatch}."
    return sentence


def filled_bins(values: Mapping[str, Difference], least: int) -> list[int]:
    """Return the bins of confidence, from 0, that hold at least so many questions."""
    return [k for k, name in enumerate(LOG_ODDS_SHIFT) if name in values and values[name].n >= least]


def _moved(change: Difference) -> str:
    value, low, high = change.value, change.ci_low, change.ci_high
    if value == low == high == 0:
        return "is unchanged"
    is_shown = value is not None and low is not None and high is not None and not low <= 0 <= high
    word = "is not shown to change" if value is None or not is_shown else "rises" if value > 0 else "falls"
    return f"{word} ({tables.number(value, sign=True)} {tables.interval(change, sign=True)})"


def percent_of_bin(k: int) -> str:
    """Return the confidences of the k-th bin, from 0, in percent."""
    return f"{100 * k // BINS}–{100 * (k + 1) // BINS}%"


def _range(noise: Difference) -> str:
    return f"{tables.number(noise.ci_low, sign=True)} to {tables.number(noise.ci_high, sign=True)}"
