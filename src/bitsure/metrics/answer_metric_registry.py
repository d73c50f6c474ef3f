"""The part of `bitsure.metrics.metric_registry` that is of written answers."""

from __future__ import annotations

from bitsure.config.metric import ANSWER_CONFIDENCES, P_TRUE, SELF_CONSISTENCY, SEQUENCE_PROBABILITY, TOKEN_PROBABILITY
from bitsure.metrics.answer_certainty import CERTAINTIES, ENTROPIES, SEMANTIC_ENTROPY, TOKEN_ENTROPY
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
from bitsure.metrics.metric_entry import ANY, NATS, POSITIVE, PROBABILITY, RATIO, SHARE, UNIT, MetricEntry
from bitsure.metrics.metric_names import ECE, SQUARED_CALIBRATION
from bitsure.metrics.preference import BALANCE, PREFERS_FULL, PREFERS_NEITHER, PREFERS_QUANTIZED, TOKEN_LOGPROB

ANSWER_METRICS = {
    "answer_logprob": MetricEntry("Mean log-probability of a whole written answer.", NATS, "(−∞, 0]"),
    "answer_tokens": MetricEntry(
        "Mean number of tokens of a written answer, the one that ended it included.", "tokens", "[1, ∞)"
    ),
    TOKEN_PROBABILITY: MetricEntry("Mean geometric mean of the probabilities of a written answer's tokens.", PROBABILITY, UNIT),
    SEQUENCE_PROBABILITY: MetricEntry("Mean probability of a whole written answer.", PROBABILITY, UNIT),
    SELF_CONSISTENCY: MetricEntry(
        "Mean (s + ½) / (k + 1), s of k answers that are drawn being filtered to the same as the written answer.",
        PROBABILITY,
        "(0, 1)",
        "Wang et al. 2023",
    ),
    P_TRUE: MetricEntry(
        "Mean probability of True against False, the model being asked whether its written answer is true.",
        PROBABILITY,
        UNIT,
        "Kadavath et al. 2022",
    ),
    TOKEN_ENTROPY: MetricEntry(
        "Mean over written answers of the mean entropy of the distributions that their tokens come from.",
        NATS,
        "[0, ln V]",
        "Malinin & Gales 2021",
    ),
    SEMANTIC_ENTROPY: MetricEntry(
        "Mean entropy of the groups of k drawn answers that are filtered to the same.",
        NATS,
        "[0, ln k]",
        "Farquhar et al. 2024",
    ),
}
ANSWER_METRICS |= {  # each way to be sure of a written answer
    f"{name}/auroc": MetricEntry(
        f"`auroc` of written answers, the surer by `{name}` first{', less entropy being surer' if name in ENTROPIES else ''}.",
        RATIO,
        UNIT,
        "Hanley & McNeil 1982",
    )
    for name in CERTAINTIES
}
ANSWER_METRICS |= {
    f"{name}/{error}": MetricEntry(f"`{error}` of written answers with `{name}` as their confidence.", unit, values)
    for name in ANSWER_CONFIDENCES
    for error, unit, values in ((ECE, PROBABILITY, UNIT), (SQUARED_CALIBRATION, "squared probability", "[−1/4, 1]"))
}
DIVERGENCE_METRICS = {
    IDENTICAL: MetricEntry("Written answers of f and q with the same text.", SHARE, UNIT),
    OTHER_WORDING: MetricEntry(
        "Written answers with other texts, of which the harness judges the same; `flip_rate` are the other answers.",
        SHARE,
        UNIT,
    ),
    NOTHING_JUDGED: MetricEntry("Written answers with other texts, in both of which the harness finds nothing.", SHARE, UNIT),
    POSITION: MetricEntry("Mean number of tokens before the first that differs, of answers that have one.", "tokens", POSITIVE),
    FULL_PROBABILITY: MetricEntry("Mean probability that f gives to its own token there.", PROBABILITY, UNIT),
    QUANTIZED_PROBABILITY: MetricEntry("Mean probability that q gives to its own token there.", PROBABILITY, UNIT),
    MARGIN: MetricEntry("Mean of f's largest probability less its second largest there.", PROBABILITY, UNIT),
    PER_TOKEN: MetricEntry(
        "Tokens that differ, of those in common and those that differ: how often the models part.", "share of tokens", UNIT
    ),
    AUROC: MetricEntry(
        "P(f's margin is larger at a token in common than at one that differs), ties half; 0.5: it says nothing.",
        RATIO,
        UNIT,
        "Hanley & McNeil 1982",
    ),
    **{
        name: MetricEntry(
            f"`{PER_TOKEN}` where f's margin is in [{10 * k}%, {10 * k + 10}%{']' if k == MARGIN_BINS - 1 else ')'}.",
            "share of tokens",
            UNIT,
        )
        for k, name in enumerate(BY_MARGIN)
    },
}
DIVERGENCE_METRICS |= {
    PREFERS_FULL: MetricEntry("Questions to which f finds its own written answer likelier, a token on average.", SHARE, UNIT),
    PREFERS_QUANTIZED: MetricEntry("Questions to which f finds q's written answer likelier.", SHARE, UNIT),
    PREFERS_NEITHER: MetricEntry("Questions to which f finds both likely, as the same answers.", SHARE, UNIT),
    BALANCE: MetricEntry(f"`{PREFERS_QUANTIZED}` less `{PREFERS_FULL}`.", SHARE, "[−1, 1]"),
    TOKEN_LOGPROB: MetricEntry("Mean log-probability that f gives to a token of q's answer less that of its own.", NATS, ANY),
}
DIVERGENCE_METRICS |= {  # along the answers that full precision wrote
    name: MetricEntry(f"Texts: mean {what} over tokens {first} to {2 * first - 1} of f's written answers.", unit, values)
    if first < FIRST_TOKENS[-1]
    else MetricEntry(f"Texts: mean {what} from token {first} of f's written answers on.", unit, values)
    for names, what, unit, values in ((KL_FROM, "KL(f ‖ q)", NATS, POSITIVE), (CHANGE_FROM, "Δp", PROBABILITY, "[−1, 1]"))
    for name, first in zip(names, FIRST_TOKENS, strict=True)
}
