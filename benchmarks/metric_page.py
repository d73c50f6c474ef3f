"""docs/metrics.md: every metric with formula, unit, range and source, by the question that it answers. `make docs-results`."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from bitsure.config.paths import PROJECT
from bitsure.metrics.answer_certainty import CERTAINTIES
from bitsure.metrics.metric_registry import COMPARISON_ONLY, METRICS, METRICS_ONLY

PAGE = PROJECT / "docs" / "metrics.md"
HEAD = """# Metrics

Every number of `metrics.json` and `comparison.json`, by the question that it answers. `make docs-results` writes this page
from `src/bitsure/metrics/metric_registry.py`; [Result files](results.md) has the files' other fields.

- *in*: `both` files, or one of them. In `comparison.json` a metric of both is the difference, quantized − full precision,
  on the same questions.
- K is the number of choices and p_G the probability of the right ones. The confidence c is the largest choice
  probability. A bin b of confidences has share w_b of the questions, mean confidence c̄_b and accuracy ȳ_b.
- f is the full-precision model, q the quantized one. δ is the change of the log-odds ln(p_G / (1 − p_G)) of a question.
- `macro_average` stands for the mean over tasks, without twins such as `arc_easy@typos` of tasks among them.
- `noise_control/NAME` is metric NAME of the noise control, over its seeds.
- Tasks without choices have the metrics that exist for them.

[Coverage of intervals](coverage.md) shows how often each interval covers the truth. Settings change what is computed from
the same records: `metric.normalization=none|token|char|byte` and `metric.binning=uniform|quantile`.
"""


@dataclass(frozen=True)
class Section:
    """Metrics that answer one question.

    Attributes:
        title: The question.
        trust: When to trust the metrics, in Markdown.
        names: Their names; `*` stands for any part of one.
    """

    title: str
    trust: str
    names: tuple[str, ...]

    def metrics(self) -> list[str]:
        """Return the names of the section's metrics."""
        return [name for name in METRICS if any(fnmatchcase(name, pattern) for pattern in self.names)]


SECTIONS = (
    Section(
        "Is it right?",
        "Trust accuracy from 30 questions on, within its interval. It is coarse: one question is worth 1/n, and a model may "
        "change much without a flip. Compare it with guessing before you read a loss into it: a task on which full precision "
        "is not above guessing shows nothing about quantization.",
        ("accuracy", "accuracy_above_guessing", "baseline_accuracy_above_guessing", "baseline_nll_below_guessing"),
    ),
    Section(
        "How probable is the right answer?",
        "These move before answers flip, so they need fewer questions than accuracy. `true_label_prob` is the study's measure "
        "and has the one confirmatory test; `true_label_prob_cluster_robust` holds where questions come in clusters. A few "
        "questions with tiny probabilities may carry the NLL. `brier_score` and `brier_score_set` are different scores and "
        "are never averaged together.",
        ("true_label_prob", "true_label_prob_cluster_robust", "nll", "brier_score", "brier_score_set"),
    ),
    Section(
        "How sure is it?",
        "These say nothing about being right: a model may be confident and wrong. `confidence_correct` and "
        "`confidence_wrong` are over each model's own right and wrong answers, so that their differences mix two effects: "
        "other answers, and another confidence in the same ones.",
        ("confidence", "confidence_correct", "confidence_wrong", "entropy", "margin", "overconfidence"),
    ),
    Section(
        "Does confidence match accuracy?",
        "Trust `debiased_squared_calibration_error`: it has no bias to speak of, may be negative, and the verdict goes by it. "
        "`expected_calibration_error` is the number that papers print. It is biased upward, the more so the better the model "
        "and the fewer the questions: compare it with `expected_calibration_error_if_calibrated`. Its interval takes the wider "
        "ends of the basic and the percentile bootstrap, and reaches down as far as calibration explains the error. The "
        "smooth error is biased likewise. The maximum, smooth, RMS and class-wise error of one run have no interval: none "
        "that was tried covers the truth at 90%.",
        (
            "expected_calibration_error",
            "expected_calibration_error_if_calibrated",
            "debiased_squared_calibration_error",
            "smooth_calibration_error",
            "maximum_calibration_error",
            "rms_calibration_error",
            "classwise_calibration_error",
            "brier_reliability",
            "brier_resolution",
            "brier_uncertainty",
        ),
    ),
    Section(
        "Would a temperature mend it?",
        "Temperatures are found on other folds of the questions than they are used on. The rise of the NLL that they remove "
        "(`nll_mended_by_temperature`) is a matter of scale, which you can mend; the rest (`nll_beyond_temperature`) is not.",
        ("temperature", "*_at_own_temperature", "nll_mended_*", "nll_beyond_*", "nll_saved_*"),
    ),
    Section(
        "Are the confident answers the right ones?",
        "These go by the order of confidences alone, and need both right and wrong answers. Compare `aurc` of two models only "
        "with their accuracies beside it: `aurc_excess` takes the accuracy out.",
        ("auroc", "aurc", "aurc_excess"),
    ),
    Section(
        "How many choices hold the right one?",
        "A set holds every choice whose probability reaches a threshold. The threshold would have left out the right choice "
        "of at most 10% of the questions of the other folds, the question's own cluster counted as left out. This is split "
        "conformal prediction; the score is 1 − p of the most probable right choice. On average over draws of exchangeable "
        "questions or clusters, the sets of any model then cover at least 90%; a better model has smaller sets. A set may be "
        "empty. It holds all choices where there are too few questions for the promise.",
        ("conformal_set_size", "conformal_coverage"),
    ),
    Section(
        "Which answers changed?",
        "Flips count changes in both directions, so that accuracy may stay while many answers change. KL divergence is 0 only "
        "if all choice probabilities are the same, and sees changes of wrong choices too. It has no margin of its own.",
        (
            "flip_rate",
            "correct_to_wrong",
            "wrong_to_correct",
            "kl_divergence",
            "jensen_shannon_divergence",
            "jensen_shannon_distance",
            "questions_*",
        ),
    ),
    Section(
        "Do other words change the answer?",
        "Of tasks such as `arc_easy@typos`, where the original was asked as well "
        "([Tasks](tasks.md#the-same-questions-in-other-words)). Questions are paired by their document; those whose prompt is "
        "the same in both are left out. In `comparison.json` it is how much more the quantized model's answers change: above 0 "
        "it is less robust.",
        ("twin_*",),
    ),
    Section(
        "How faithful is it to the full model's next-token probabilities?",
        "Of texts: what llama-perplexity prints, over the whole vocabulary and every scored token. KL divergence sees every "
        "probability, Δp the true token's alone, and `same_top_token` what greedy decoding would write. Intervals and "
        "`standard_error` are by documents (or windows); `token_standard_error` takes tokens for independent, as "
        "llama-perplexity's ± does, and is too small. Compare the means by confidence with the noise control's.",
        (
            "kl_divergence_*",
            "true_token_prob_change",
            "true_token_prob_change_*",
            "same_top_token",
            "perplexity_ratio",
            "ln_perplexity_ratio",
            "token_nll_correlation",
        ),
    ),
    Section(
        "Is the most likely token as often right as it is probable?",
        "Of texts: the calibration of the most likely token, with documents (or windows) as clusters.",
        ("next_token/*",),
    ),
    Section(
        "Do unsure questions fare worse?",
        "In probabilities the same change of the log-odds looks larger near one half, which is the slope of the softmax. "
        "Trust the log-odds: harm (their mean change) and instability (its standard deviation). A trend over the strata means "
        "something only in comparison with noise of the same size, which `control=noise` adds. A stratum holds a fifth of the "
        "questions, so that it needs five times as many.",
        ("harm", "harm_*", "instability", "instability_*", "probability_shift_*", "log_odds_shift_*"),
    ),
    Section(
        "What if unsure questions went to full precision?",
        "Thresholds are found on other folds than they are used on. Gains are over deferring as many questions at random. "
        "`metric.quantized_cost` is what a quantized answer costs where one in full precision costs 1; by default it is the "
        "bits per weight ÷ 16.",
        ("deferral_accuracy_*", "deferral_gain_*"),
    ),
    Section(
        "Do thresholds found on full precision still hold?",
        "A threshold that was found on f is applied to both models: `baseline` is what f itself keeps of the promise, "
        "`quantized` what q keeps of it, and the interval is that of the paired change. "
        "`conformal_coverage_at_full_threshold` below 0 means that sets need a new threshold after quantizing. "
        "`deferral_safe_at_full_threshold_20_percent` below 0 means that more wrong answers pass a confidence below which 20% "
        "of f's answers lie (`share` is what q defers at it).",
        ("conformal_set_size_at_full_threshold", "conformal_coverage_at_full_threshold", "deferral_safe_at_full_threshold_*"),
    ),
    Section(
        "How are written answers?",
        "A written answer is right or wrong by the harness's own metric; its confidence is that of `metric.answer_confidence` "
        "([Written answers](generation.md)). All that choices have of a confidence and of being right, these tasks have under "
        "the same names: `true_label_prob`, `nll` and `brier_score` are of the event that the answer is right. "
        "Every other way to be sure of an answer stands beside: the larger its AUROC, the better it knows right answers.",
        ("answer_logprob", "answer_tokens", *CERTAINTIES, *(f"{name}/*" for name in CERTAINTIES)),
    ),
    Section(
        "Where in a long text is the answer found?",
        "Of tasks whose questions have a length and a depth ([Retrieval](retrieval.md)): one number for each, over few "
        "questions. Read the heat map as a whole, not its extreme: of many fields some are low by chance.",
        ("retrieval/*",),
    ),
    Section(
        "Where do two written answers part?",
        "At the first token that differs both models have read the same; after it they have not, so nothing is compared there "
        "([Written answers](generation.md)). Rates are per token at risk, since an answer that ends says nothing of further "
        "tokens. `divergence/auroc` above 0.5 means that the models part where f was unsure.",
        ("divergence/*",),
    ),
    Section(
        "Which of two written answers does full precision find likelier?",
        "With `task.preference=true`: f reads q's answers "
        "([Written answers](generation.md#which-answers-full-precision-prefers)). It mostly prefers its own, which it wrote. "
        "That says how far q's are from them, not which are better.",
        ("preference/*",),
    ),
    Section(
        "How well are texts predicted?",
        "Documents are resampled, not tokens, since tokens of one text are not independent. Perplexities of words and bytes "
        "compare models with different tokenizers; that of tokens does not.",
        ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"),
    ),
    Section(
        "The study's numbers",
        "With `metric=paper_compat`, as the study's notebook computes them, faults included. They are there to be compared "
        "with what the study prints, and for nothing else: their intervals cover too rarely.",
        ("paper_compat/*",),
    ),
)


def page() -> str:
    """Return the text of docs/metrics.md."""
    return "\n".join(
        [HEAD, *(f"## {section.title}\n\n{section.trust}\n\n{_table(section.metrics())}\n" for section in SECTIONS)]
    )


def _table(names: list[str]) -> str:
    rows = ["| metric | meaning | in | unit | range | source |", "|---|---|---|---|---|---|"]
    for name in names:
        entry = METRICS[name]
        meaning = entry.sentence.replace("|", "\\|")
        rows.append(f"| `{name}` | {meaning} | {_files(name)} | {entry.unit} | {entry.range} | {entry.source} |")
    return "\n".join(rows)


def _files(name: str) -> str:
    if name in METRICS_ONLY:
        return "`metrics.json`"
    return "`comparison.json`" if name in COMPARISON_ONLY else "both"
