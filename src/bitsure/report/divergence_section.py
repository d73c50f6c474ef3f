"""Say and draw where two models part that write answers, and whether full precision was unsure there."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.base.decimals import decimal
from bitsure.config.text import OF_ANSWERS
from bitsure.metrics.answer_positions import CHANGE_FROM, FIRST_TOKENS, KL_FROM
from bitsure.metrics.divergence import (
    AUROC,
    BY_MARGIN,
    FULL_PROBABILITY,
    IDENTICAL,
    MARGIN,
    MARGIN_BINS,
    NOTHING_JUDGED,
    OTHER_WORDING,
    PER_TOKEN,
    POSITION,
    QUANTIZED_PROBABILITY,
)
from bitsure.metrics.preference import BALANCE, PREFERS_FULL, PREFERS_NEITHER, PREFERS_QUANTIZED, TOKEN_LOGPROB
from bitsure.report.chart_layers import number_axis
from bitsure.report.charts import WIDTH, Chart, titled
from bitsure.report.percentages import percent
from bitsure.report.shift_charts import FEWEST_DRAWN, shift_panel
from bitsure.report.tables import interval, number
from bitsure.results import Comparison, Difference

NO_RANK = 0.5  # an AUROC that says nothing


def divergence_lines(comparison: Comparison | None) -> list[str]:
    """Return a line for each task whose answers are written: how many are the same, and which full precision prefers."""
    return [
        f"{task}: {' '.join([*_alike(values), *_unsure(values), *_preferred(values)])}"
        for task, values in _written(comparison).items()
    ]


def divergence_sentences(comparison: Comparison | None) -> list[str]:
    """Return for each task whose answers are written what stands in `divergence_lines`, and the numbers behind it."""
    sentences = []
    for line, (task, values) in zip(divergence_lines(comparison), _written(comparison).items(), strict=True):
        along = (comparison or {}).get(f"text/{task}/{OF_ANSWERS}", {})
        of_tokens = [_first_difference(values), _along(along)] if AUROC in values else []
        sentences.append(" ".join(filter(None, [line, *of_tokens])))
    return sentences


def divergence_chart(task: str, values: Mapping[str, Difference]) -> Chart | None:
    """Return how often the models part by full precision's margin; None for fewer than two bins with enough tokens.

    Args:
        task: The task.
        values: Its part of a comparison.
    """
    bins = [k for k, name in enumerate(BY_MARGIN) if name in values and values[name].n >= FEWEST_DRAWN]
    if len(bins) < 2:
        return None
    x = number_axis("full precision's margin", {"domain": [0, 1]}, format=".0%", values=[0, 1], grid=False)
    groups = {BY_MARGIN[k]: ((k + 0.5) / MARGIN_BINS, f"margin {10 * k}–{10 * k + 10}%") for k in bins}
    unsure, sure = (values[BY_MARGIN[k]] for k in (bins[0], bins[-1]))
    finding = (
        f"{task}: of the tokens where full precision's margin is {10 * bins[0]}–{10 * bins[0] + 10}%, the models choose "
        f"{percent(unsure.value)} differently; where it is {10 * bins[-1]}–{10 * bins[-1] + 10}%, {percent(sure.value)}."
    )
    panel = shift_panel(values, groups, x, "share of tokens that differ", unit="tokens")
    return Chart(titled(task, panel | {"width": WIDTH}), finding)


def _written(comparison: Comparison | None) -> Comparison:
    return {task: values for task, values in (comparison or {}).items() if IDENTICAL in values}


def _alike(values: Mapping[str, Difference]) -> list[str]:
    identical, wording, other, nothing = (values[name] for name in (IDENTICAL, OTHER_WORDING, "flip_rate", NOTHING_JUDGED))
    sentences = [f"{_share(identical)} of {identical.n:,} answers are full precision's, word for word."]
    if "accuracy" not in values:
        return [*sentences, "Whether the others mean the same is not judged: the questions are open."]
    sentences.append(f"The harness finds the same answer in other words in {_share(wording)} and another in {_share(other)}.")
    return [*sentences, f"It finds nothing to judge in {_share(nothing)}."] if nothing.value else sentences


def _unsure(values: Mapping[str, Difference]) -> list[str]:
    """Return whether the models part where full precision was unsure; nothing of models with other tokenizers."""
    if AUROC not in values:
        return []
    auroc = values[AUROC]
    if auroc.value is None:
        return ["The models never part." if not values[PER_TOKEN].value else "The models part at every token."]
    number = f"AUROC of its margin {decimal(auroc.value, '.3f')}"
    if auroc.ci_low is None or auroc.ci_high is None:
        return [f"Too few part to say whether they do where full precision is unsure ({number}, without an interval)."]
    numbers = f"{number} {interval(auroc)}"
    if auroc.ci_low <= NO_RANK <= auroc.ci_high:
        return [f"Whether the models part where full precision is unsure is open ({numbers})."]
    return [f"The models part where full precision is {'unsure' if auroc.value > NO_RANK else 'sure'} ({numbers})."]


def _preferred(values: Mapping[str, Difference]) -> list[str]:
    """Return whose answers full precision finds likelier; nothing where it did not read the quantized model's."""
    if BALANCE not in values:
        return []
    change = values[TOKEN_LOGPROB]
    shares = [_share(values[name]) for name in (PREFERS_QUANTIZED, PREFERS_FULL, PREFERS_NEITHER)]
    return [
        f"By its mean log-probability of a token, full precision prefers the other model's answer in {shares[0]}, its own in "
        f"{shares[1]}, neither in {shares[2]}; the mean difference is {number(change.value, sign=True)} "
        f"{interval(change, sign=True)} nats."
    ]


def _first_difference(values: Mapping[str, Difference]) -> str:
    position, per_token = values[POSITION], values[PER_TOKEN]
    if not position.n:
        return ""
    return (
        f"{position.n:,} answers have a first token that differs, after {decimal(position.value, '.1f')} in common on average; "
        f"of the {per_token.n:,} tokens so far {_share(per_token)} differ. There full precision gives "
        f"{decimal(values[FULL_PROBABILITY].value, '.3f')} to its own token, the quantized model "
        f"{decimal(values[QUANTIZED_PROBABILITY].value, '.3f')} to its own, and full precision's two likeliest tokens are "
        f"{decimal(values[MARGIN].value, '.3f')} apart."
    )


def _along(values: Mapping[str, Difference]) -> str:
    """Return how far the quantized model is from full precision along full precision's own answers."""
    if KL_FROM[0] not in values:
        return "With text=written both models are compared along full precision's answers, token by token."
    last = max(k for k, name in enumerate(KL_FROM) if name in values)
    mean, first, end = (values[name] for name in ("kl_divergence", KL_FROM[0], KL_FROM[last]))
    change = values[CHANGE_FROM[0]]
    return (
        f"Along full precision's answers the quantized model is {number(mean.value)} {interval(mean)} nats (KL) from it: "
        f"{number(first.value)} at the first token, {number(end.value)} from token {FIRST_TOKENS[last]} on; the first token's "
        f"probability changes by {number(change.value, sign=True)}."
    )


def _share(share: Difference) -> str:
    return f"{percent(share.value)} [{percent(share.ci_low)}, {percent(share.ci_high)}]"
