"""Summarize a run in a few sentences, at the top of its page."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.comparison import was_compared
from bitsure.metrics.metric_names import CLUSTER_ROBUST, MACRO, PRIMARY
from bitsure.report import tables
from bitsure.results import Comparison, Difference


def sentences(comparison: Comparison | None, alpha: float) -> list[str]:
    """Return how each task changed.

    Args:
        comparison: The run against full precision; None for a full-precision run.
        alpha: The significance level of the primary tests.
    """
    if comparison is None:
        return ["This is a single model: there is nothing to compare it with."]
    lines = []
    for task, values in comparison.items():
        if task != MACRO and was_compared(values):
            lines.append(_probability(task, values, alpha) if PRIMARY in values else _perplexity(task, values))
    return lines


def _probability(task: str, values: Mapping[str, Difference], alpha: float) -> str:
    change, flips = values[PRIMARY], values["flip_rate"]
    outcome = "significant" if change.significant else "not significant, which does not show that nothing changed"
    test = f"{tables.p_value(change.p_value)}, by Holm {tables.p_value(change.p_adjusted)} at α = {alpha:g}: {outcome}"
    if robust := values.get(CLUSTER_ROBUST):
        test += f"; {tables.p_value(robust.p_value)} with {robust.n_clusters:,} clusters instead of questions"
    if change.smallest_detectable:
        test += f"; 80% power to detect a change of {change.smallest_detectable:.4f}"
    return (
        f"{task}: the mean probability of the right answer changed from {tables.number(change.baseline)} to "
        f"{tables.number(change.quantized)}, a change of {tables.number(change.value, sign=True)} "
        f"{tables.interval(change, sign=True)} ({test}); {flips.value:.1%} of {change.n:,} answers changed."
    )


def _perplexity(task: str, values: Mapping[str, Difference]) -> str:
    name, what, unit = ("perplexity", "perplexity per token", "documents or windows")
    if "word_perplexity" in values:
        name, what, unit = ("word_perplexity", "perplexity per word", "texts")
    perplexity, nll = values[name], values["nll"]
    return (
        f"{task}: the {what} changed from {tables.number(perplexity.baseline)} to {tables.number(perplexity.quantized)}; "
        f"the NLL per token changed by {tables.number(nll.value, sign=True)} nats {tables.interval(nll, sign=True)} over "
        f"{nll.n:,} {unit} ({tables.p_value(nll.p_value)}, exploratory, adjusted {tables.p_value(nll.p_adjusted)})."
    )
