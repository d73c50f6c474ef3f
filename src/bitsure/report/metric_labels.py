"""What pages call metrics and tasks: words instead of the names in result files."""

from __future__ import annotations

from bitsure.metrics.metric_names import MACRO

WORDS = {
    MACRO: "mean over tasks",
    "true_label_prob": "true-label probability",
    "expected_calibration_error": "binned calibration error",
    "expected_calibration_error_if_calibrated": "calibration error if calibrated",
    "word_perplexity": "perplexity per word",
}
FIELD_TERMS = {
    "nll": "NLL",
    "kl": "KL",
    "js": "JS",
    "auroc": "AUROC",
    "aurc": "AURC",
    "prob": "probability",
    "ece": "ECE",
    "brier": "Brier",
    "rms": "RMS",
}


def metric_label(name: str) -> str:
    """Return a metric's name in words, such as `binned calibration error` for `expected_calibration_error`."""
    if name in WORDS:
        return WORDS[name]
    return " ".join(FIELD_TERMS.get(word, word) for word in name.split("_"))
