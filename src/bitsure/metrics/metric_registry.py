"""Every name in metrics.json and comparison.json: what it measures, in which unit and range, and where it is from.

docs/metrics.md lists it. c is the confidence, p_G the probability of the right choices, b a confidence bin with share w_b of
the questions, mean confidence c̄_b and accuracy ȳ_b; f is the full-precision model, q the quantized one.
"""

from __future__ import annotations

from bitsure.metrics.answer_metric_registry import ANSWER_METRICS, DIVERGENCE_METRICS
from bitsure.metrics.confidence_shift import LOG_ODDS_SHIFT, PROBABILITY_SHIFT
from bitsure.metrics.conformal import MISCOVERAGE
from bitsure.metrics.deferral import NAMES
from bitsure.metrics.fidelity import CHANGE_PERCENTILES, CONFIDENCE_BINS, EXTREMES, KL_PERCENTILES, PROBABILITY_CHANGE
from bitsure.metrics.full_thresholds import COVERAGE_AT_FULL_THRESHOLD, SAFE_AT_FULL_THRESHOLD, SIZE_AT_FULL_THRESHOLD
from bitsure.metrics.metric_entry import ANY, NATS, POSITIVE, PROBABILITY, RATIO, SHARE, UNIT, MetricEntry
from bitsure.metrics.metric_names import (
    ACCURACY_ABOVE_GUESSING,
    AT_OWN_TEMPERATURE,
    BASELINE_ABOVE_GUESSING,
    BASELINE_NLL_BELOW_GUESSING,
    CLUSTER_ROBUST,
    CONFORMAL_COVERAGE,
    CONFORMAL_SET_SIZE,
    CORRELATION,
    ECE_IF_CALIBRATED,
    LN_PERPLEXITY_RATIO,
    NEXT_TOKEN,
    ONLY_BASELINE,
    ONLY_QUANTIZED,
    PAPER_COMPAT,
    PERPLEXITY_RATIO,
    QUESTIONS_EQUAL,
    QUESTIONS_JOINED,
    RETRIEVAL,
    SQUARED_CALIBRATION,
    TWIN_ACCURACY_CHANGE,
    TWIN_FLIP_RATE,
)
from bitsure.metrics.question_pairs import STRATA


def _percentile(share: float) -> str:
    return {0.0: "the least", 0.5: "the median", 1.0: "the largest"}.get(share, f"the {100 * share:g}% percentile")


ONE_MODEL = {  # in metrics.json; in comparison.json the difference, quantized − full precision
    "accuracy": MetricEntry("Questions whose most probable choice is right; greedy decoding without choices.", SHARE, UNIT),
    "confidence": MetricEntry("Mean probability of the predicted choice.", PROBABILITY, "[1/K, 1]"),
    "confidence_correct": MetricEntry("Mean confidence of the right answers.", PROBABILITY, "[1/K, 1]"),
    "confidence_wrong": MetricEntry("Mean confidence of the wrong answers.", PROBABILITY, "[1/K, 1]"),
    "true_label_prob": MetricEntry("Mean probability of the right choices, p_G.", PROBABILITY, UNIT, "Proskurina et al. 2024"),
    "entropy": MetricEntry("Mean entropy of the choice probabilities.", NATS, "[0, ln K]"),
    "margin": MetricEntry("Mean difference of the two largest choice probabilities.", PROBABILITY, UNIT),
    "nll": MetricEntry("Mean negative log-likelihood: −ln p_G of a question; of a token in whole texts.", NATS, POSITIVE),
    "brier_score": MetricEntry("Mean of Σ_k (p_k − 1[k is right])²; one right choice.", RATIO, "[0, 2]", "Brier 1950"),
    "brier_score_set": MetricEntry("Mean of (1 − p_G)²; tasks with several right choices.", RATIO, UNIT),
    "overconfidence": MetricEntry("Mean confidence less accuracy.", PROBABILITY, "[−1, 1]"),
    "expected_calibration_error": MetricEntry(
        "Σ_b w_b |ȳ_b − c̄_b|; biased upward.", PROBABILITY, UNIT, "Guo et al. 2017, eq. 3"
    ),
    "debiased_squared_calibration_error": MetricEntry(
        "Σ_b w_b [(ȳ_b − c̄_b)² − ȳ_b (1 − ȳ_b) / (n_b − 1)], a bin of one question counting 0; negative where errors are below "
        "chance.",
        "squared probability",
        "[−1/4, 1]",
        "Kumar et al. 2019, section 4",
    ),
    "smooth_calibration_error": MetricEntry(
        "Calibration error without bins: the mean absolute residual, smoothed by a Gaussian as wide as that mean.",
        PROBABILITY,
        UNIT,
        "Błasiok & Nakkiran 2024",
    ),
    "maximum_calibration_error": MetricEntry("max_b |ȳ_b − c̄_b|.", PROBABILITY, UNIT, "Naeini et al. 2015"),
    "rms_calibration_error": MetricEntry("√(Σ_b w_b (ȳ_b − c̄_b)²).", PROBABILITY, UNIT, "Hendrycks et al. 2019"),
    "classwise_calibration_error": MetricEntry(
        "Expected calibration error of each choice's probability, averaged; tasks with the same choices throughout.",
        PROBABILITY,
        UNIT,
        "Kull et al. 2019",
    ),
    "brier_reliability": MetricEntry("Σ_b w_b (c̄_b − ȳ_b)².", RATIO, UNIT, "Murphy 1973"),
    "brier_resolution": MetricEntry("Σ_b w_b (ȳ_b − ȳ)².", RATIO, "[0, 1/4]", "Murphy 1973"),
    "brier_uncertainty": MetricEntry("ȳ (1 − ȳ).", RATIO, "[0, 1/4]", "Murphy 1973"),
    "auroc": MetricEntry(
        "P(a right answer is more confident than a wrong one), ties half.", RATIO, UNIT, "Hanley & McNeil 1982"
    ),
    "aurc": MetricEntry(
        "Mean error rate over all coverages, confident questions first.", SHARE, UNIT, "Geifman & El-Yaniv 2017"
    ),
    "aurc_excess": MetricEntry("The same less that of the best order.", SHARE, UNIT, "Geifman et al. 2019"),
    "temperature": MetricEntry(
        "Mean softmax temperature with the smallest NLL on the other folds.", RATIO, "(0, ∞)", "Guo et al. 2017, section 4.2"
    ),
    CONFORMAL_SET_SIZE: MetricEntry(
        f"Mean number of choices in a set that holds a right one for {1 - MISCOVERAGE:.0%} of the questions; its threshold is "
        "from the other folds.",
        "choices",
        "[0, K]",
        "Sadinle et al. 2019",
    ),
    "perplexity": MetricEntry("exp(NLL) of a continuation, or of a token in whole texts.", RATIO, "[1, ∞)"),
    "word_perplexity": MetricEntry("exp(NLL of a word).", RATIO, "[1, ∞)", "lm-evaluation-harness"),
    "byte_perplexity": MetricEntry("exp(NLL of a UTF-8 byte).", RATIO, "[1, ∞)", "lm-evaluation-harness"),
    "bits_per_byte": MetricEntry("NLL of a UTF-8 byte.", "bits", POSITIVE, "lm-evaluation-harness"),
}
ONE_MODEL |= {  # twins: the same questions in other words
    TWIN_FLIP_RATE: MetricEntry("Questions whose predicted choice is another one in other words.", SHARE, UNIT),
    TWIN_ACCURACY_CHANGE: MetricEntry("Accuracy in other words less that on the questions themselves.", SHARE, "[−1, 1]"),
}
ONE_MODEL |= ANSWER_METRICS
_PLACE = "over the questions whose text has L words and the answer at D percent of it"
ONE_MODEL |= {  # retrieval: one for each L and D
    f"{RETRIEVAL}accuracy_length_L_depth_D": MetricEntry(f"`accuracy` {_PLACE}.", SHARE, UNIT, "Liu et al. 2024"),
    f"{RETRIEVAL}true_label_prob_length_L_depth_D": MetricEntry(f"`true_label_prob` {_PLACE}.", PROBABILITY, UNIT),
}
_TOP = "of the most likely token of running text"
ONE_MODEL |= {  # texts
    f"{NEXT_TOKEN}{name}": entry
    for name, entry in {
        "accuracy": MetricEntry("Tokens that the model held most likely.", "share of tokens", UNIT),
        "confidence": MetricEntry(f"Mean probability {_TOP}.", PROBABILITY, UNIT),
        "overconfidence": MetricEntry(f"Mean probability {_TOP} less the share that is right.", PROBABILITY, "[−1, 1]"),
        "nll": MetricEntry(
            f"Mean −ln c where it is right and −ln (1 − c) elsewhere, c the probability {_TOP}.", NATS, POSITIVE
        ),
        SQUARED_CALIBRATION: MetricEntry(
            f"`{SQUARED_CALIBRATION}` {_TOP}.", "squared probability", "[−1/4, 1]", "Kumar et al. 2019, section 4"
        ),
    }.items()
}
_NOTEBOOK = "the study's notebook"
PAPER_METRICS = {  # with metric=paper_compat; in both files, as the study's notebook computes them
    f"{PAPER_COMPAT}{name}": entry
    for name, entry in {
        "conf": MetricEntry("Mean confidence.", PROBABILITY, "[1/K, 1]", _NOTEBOOK),
        "conf_true": MetricEntry("Mean probability of the (first) right choice.", PROBABILITY, UNIT, _NOTEBOOK),
        "c_pos": MetricEntry("Mean confidence of the right answers.", PROBABILITY, "[1/K, 1]", _NOTEBOOK),
        "c_neg": MetricEntry("Mean confidence of the wrong answers.", PROBABILITY, "[1/K, 1]", _NOTEBOOK),
        "entropy": MetricEntry("Mean entropy; none where a probability is 0.", "bits", "[0, log₂ K]", _NOTEBOOK),
        "ace": MetricEntry("Adaptive calibration error, with the notebook's faults.", PROBABILITY, UNIT, _NOTEBOOK),
        "mce": MetricEntry("Maximum calibration error, likewise; signed with two choices.", PROBABILITY, "[−1, 1]", _NOTEBOOK),
        "sce": MetricEntry("Static calibration error, likewise; more than two choices.", PROBABILITY, UNIT, _NOTEBOOK),
    }.items()
}
METRICS_ONLY = {  # in metrics.json alone
    ACCURACY_ABOVE_GUESSING: MetricEntry("Accuracy less that of guessing without reading the question.", SHARE, "[−1, 1]"),
    CONFORMAL_COVERAGE: MetricEntry(
        f"Questions with a right choice in that set; {1 - MISCOVERAGE:.0%} or more on average over draws of questions.",
        SHARE,
        UNIT,
    ),
    ECE_IF_CALIBRATED: MetricEntry(
        "Mean expected calibration error if each answer were right with probability c.", PROBABILITY, UNIT
    ),
    **{
        own: MetricEntry(f"`{name}` at the model's own `temperature`.", ONE_MODEL[name].unit, ONE_MODEL[name].range)
        for name, own in AT_OWN_TEMPERATURE.items()
    },
}
_STRATUM = "in fifth {k} of the questions by the full model's margin, 1 being the least certain"
_DEFERRED = "{share} of the questions, those of least confidence, go to the full model"
COMPARISON_ONLY = {  # in comparison.json alone
    QUESTIONS_JOINED: MetricEntry("Questions in both runs.", "questions", "0, 1, …"),
    QUESTIONS_EQUAL: MetricEntry(
        "Questions in both runs with equal log-probabilities, to the last bit, and equal answers.", "questions", "0, 1, …"
    ),
    ONLY_BASELINE: MetricEntry("Questions in the full-precision run only.", "questions", "0, 1, …"),
    ONLY_QUANTIZED: MetricEntry("Questions in the quantized run only.", "questions", "0, 1, …"),
    BASELINE_ABOVE_GUESSING: MetricEntry("Full precision's accuracy less that of guessing.", SHARE, "[−1, 1]"),
    BASELINE_NLL_BELOW_GUESSING: MetricEntry(
        "Texts: ln of the vocabulary's size, the NLL of equal probabilities, less f's NLL of a token.", NATS, "(−∞, ln V]"
    ),
    CLUSTER_ROBUST: MetricEntry(
        "The change of `true_label_prob`, tested with questions in clusters.", PROBABILITY, "[−1, 1]", "Liang & Zeger 1986"
    ),
    LN_PERPLEXITY_RATIO: MetricEntry("Texts: ln of the next one, the change of the NLL of a token.", NATS, ANY, "llama.cpp"),
    PERPLEXITY_RATIO: MetricEntry("Texts: q's perplexity ÷ f's.", RATIO, "(0, ∞)", "llama.cpp"),
    CORRELATION: MetricEntry("Texts: Pearson's correlation of the tokens' NLL under f and q.", RATIO, "[−1, 1]", "llama.cpp"),
    "flip_rate": MetricEntry("Questions whose prediction changed; without choices, that became right or wrong.", SHARE, UNIT),
    "correct_to_wrong": MetricEntry("Questions that became wrong.", SHARE, UNIT, "McNemar 1947"),
    "wrong_to_correct": MetricEntry("Questions that became right.", SHARE, UNIT, "McNemar 1947"),
    "kl_divergence": MetricEntry(
        "Mean KL(f ‖ q) of the choice probabilities; of texts, over the whole vocabulary.",
        NATS,
        POSITIVE,
        "Kullback & Leibler 1951",
    ),
    "jensen_shannon_divergence": MetricEntry("Mean Jensen–Shannon divergence.", "bits", UNIT, "Lin 1991"),
    "jensen_shannon_distance": MetricEntry("Mean square root of that divergence.", "√bits", UNIT, "Endres & Schindelin 2003"),
    "harm": MetricEntry("Mean δ, the change of the log-odds ln(p_G / (1 − p_G)); below 0 is harm.", NATS, ANY),
    "instability": MetricEntry("Standard deviation of δ.", NATS, POSITIVE),
    "harm_slope": MetricEntry(
        "Least-squares slope of δ on the rank (0 to 1) of the full model's margin; above 0, unsure questions fare worse.",
        NATS,
        ANY,
    ),
    "nll_mended_by_temperature": MetricEntry("The rise of the NLL that each model's own temperature removes.", NATS, ANY),
    "nll_beyond_temperature": MetricEntry("The rise of the NLL with each model at its own temperature.", NATS, ANY),
    "nll_saved_by_own_temperature": MetricEntry("NLL of q less that at q's own temperature.", NATS, ANY),
    "nll_saved_by_full_temperature": MetricEntry("NLL of q less that at f's temperature.", NATS, ANY),
    **{
        f"{name}_stratum_{k}": MetricEntry(f"{what} {_STRATUM.format(k=k)}.", NATS, values)
        for name, what, values in (("harm", "Mean δ", ANY), ("instability", "Standard deviation of δ", POSITIVE))
        for k in range(1, STRATA + 1)
    },
    **{
        name: MetricEntry(
            f"Mean change of {what} where f's confidence is in [{10 * k}%, {10 * k + 10}%{']' if k == 9 else ')'}.",
            unit,
            values,
            source,
        )
        for names, what, unit, values, source in (
            (PROBABILITY_SHIFT, "p_G", PROBABILITY, "[−1, 1]", "Proskurina et al. 2024"),
            (LOG_ODDS_SHIFT, "the log-odds, δ,", NATS, ANY, ""),
        )
        for k, name in enumerate(names)
    },
    **{
        f"deferral_{which}_{name}": MetricEntry(
            f"{what} when {_DEFERRED.format(share=name.replace('_percent', '%'))}.", SHARE, values
        )
        for which, what, values in (
            ("accuracy", "Accuracy of both models together", UNIT),
            ("gain", "Accuracy gained over deferring as many at random", "[−1, 1]"),
        )
        for name in NAMES
    },
    SIZE_AT_FULL_THRESHOLD: MetricEntry(
        "Mean size of q's answer sets at f's threshold less that of f's sets.", "choices", "[−K, K]"
    ),
    COVERAGE_AT_FULL_THRESHOLD: MetricEntry(
        "Coverage of q's answer sets at f's threshold less that of f's sets; below 0, f's promise is not kept.",
        SHARE,
        "[−1, 1]",
    ),
    **{
        safe: MetricEntry(
            f"Questions that are deferred or answered rightly, q less f, where both defer below the confidence below which "
            f"{name.replace('_percent', '%')} of f's answers lie.",
            SHARE,
            "[−1, 1]",
        )
        for safe, name in zip(SAFE_AT_FULL_THRESHOLD, NAMES, strict=True)
    },
}
_PERPLEXITY_TOOL = "llama.cpp"
COMPARISON_ONLY |= {  # texts
    PROBABILITY_CHANGE: MetricEntry("Texts: mean Δp, the change of the true token's probability.", PROBABILITY, "[−1, 1]"),
    f"{PROBABILITY_CHANGE}_rms": MetricEntry("Texts: root mean square of Δp.", PROBABILITY, UNIT, _PERPLEXITY_TOOL),
    "same_top_token": MetricEntry("Texts: tokens at which f and q hold the same one most likely.", "share of tokens", UNIT),
    **{
        f"{name}_{ending}": MetricEntry(f"Texts: {_percentile(share)} of {what} over tokens.", unit, values, _PERPLEXITY_TOOL)
        for name, what, unit, values, shares in (
            ("kl_divergence", "KL(f ‖ q)", NATS, POSITIVE, KL_PERCENTILES),
            (PROBABILITY_CHANGE, "Δp", PROBABILITY, "[−1, 1]", CHANGE_PERCENTILES),
        )
        for ending, share in {**shares, **EXTREMES}.items()
    },
    **{
        f"{name}_{10 * k}_to_{10 * k + 10}_percent": MetricEntry(
            f"Texts: mean {what} where f's most likely token has a probability in [{10 * k}%, {10 * k + 10}%"
            f"{']' if k == CONFIDENCE_BINS - 1 else ')'}.",
            unit,
            values,
        )
        for name, what, unit, values in (
            ("kl_divergence", "KL(f ‖ q)", NATS, POSITIVE),
            (PROBABILITY_CHANGE, "Δp", PROBABILITY, "[−1, 1]"),
        )
        for k in range(CONFIDENCE_BINS)
    },
}
COMPARISON_ONLY |= DIVERGENCE_METRICS
METRICS = ONE_MODEL | PAPER_METRICS | METRICS_ONLY | COMPARISON_ONLY
