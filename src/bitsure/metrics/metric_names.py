"""Names of metrics that other modules use."""

from __future__ import annotations

from bitsure.results.measurement import MACRO as MACRO

NOISE_CONTROL = "noise_control/"  # what the noise control's entries in comparison.json begin with
PAPER_COMPAT = "paper_compat/"  # what the study's own numbers begin with
NEXT_TOKEN = "next_token/"  # what the calibration of the most likely token in running text begins with
RETRIEVAL = "retrieval/"  # what the numbers of the questions of one length and depth begin with
PRIMARY = "true_label_prob"  # carries the primary test
ECE = "expected_calibration_error"
CALIBRATION = "calibration_error"  # of a verdict: the rise of the root of the next one
SQUARED_CALIBRATION = "debiased_squared_calibration_error"
JUDGED = ("accuracy", "nll", SQUARED_CALIBRATION)  # what a verdict is about
FORECAST = ("variance_error", "chance_share")  # what a forecast of questions needs of these
TEMPERATURE = "temperature"
ACCURACY_ABOVE_GUESSING = "accuracy_above_guessing"
BASELINE_ABOVE_GUESSING = f"baseline_{ACCURACY_ABOVE_GUESSING}"
BASELINE_NLL_BELOW_GUESSING = "baseline_nll_below_guessing"  # of texts
ECE_IF_CALIBRATED = f"{ECE}_if_calibrated"
CLUSTER_ROBUST = f"{PRIMARY}_cluster_robust"
QUESTIONS_JOINED, QUESTIONS_EQUAL, ONLY_BASELINE, ONLY_QUANTIZED = (
    f"questions_{which}" for which in ("joined", "equal", "only_baseline", "only_quantized")
)
PERPLEXITY_RATIO, LN_PERPLEXITY_RATIO = "perplexity_ratio", "ln_perplexity_ratio"
CORRELATION = "token_nll_correlation"
BITS_PER_BYTE = "bits_per_byte"
CONFORMAL_SET_SIZE, CONFORMAL_COVERAGE = "conformal_set_size", "conformal_coverage"
TWIN_FLIP_RATE, TWIN_ACCURACY_CHANGE = "twin_flip_rate", "twin_accuracy_change"  # of twins, which are the same in other words
# also measured at the model's own temperature, under a name of its own
AT_OWN_TEMPERATURE = {name: f"{name}_at_own_temperature" for name in ("nll", ECE, SQUARED_CALIBRATION)}
