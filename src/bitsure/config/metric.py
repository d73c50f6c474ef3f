"""Settings of the group `metric`: how metrics are computed from records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from bitsure.base.errors import UserError, at_least, one_of

TOKEN_PROBABILITY, SEQUENCE_PROBABILITY, SELF_CONSISTENCY, P_TRUE = ANSWER_CONFIDENCES = (
    "token_probability",
    "sequence_probability",
    "self_consistency",
    "p_true",
)
"""What may carry the calibration and the verdict of written answers: the confidences that are probabilities."""


@dataclass
class MetricSettings:
    """How metrics are computed from records."""

    n_bins: int = MISSING  # bins of the calibration errors and the reliability diagram
    binning: str = MISSING  # uniform: of equal width; quantile: of equally many questions
    normalization: str = MISSING  # what a choice's log-probability is divided by: none (the study) | token | char | byte
    paper_compat: bool = MISSING  # the study's numbers as its notebook computes them, beside the corrected ones
    resamples: int = MISSING  # of the bootstrap
    confidence_level: float = MISSING  # of every interval
    alpha: float = MISSING  # of the paired t-test
    seed: int = MISSING  # draws the resamples
    # a quantized answer's cost, a full-precision one's being 1; None: bits per weight / 16, a quarter if they are not known
    quantized_cost: float | None = None
    answer_confidence: str = TOKEN_PROBABILITY  # of a written answer, which of the four says how sure the model is
    # metrics of one's own: name → module.function; or a list of functions, of which each gives its name to its metric
    own: Any = None

    def __post_init__(self) -> None:
        self.own = _functions_by_name(self.own)
        at_least("metric.n_bins", self.n_bins, 1)
        one_of("metric.binning", self.binning, ("uniform", "quantile"))
        one_of("metric.normalization", self.normalization, ("none", "token", "char", "byte"))
        one_of("metric.answer_confidence", self.answer_confidence, ANSWER_CONFIDENCES)
        at_least("metric.resamples", self.resamples, 100)
        for key, most in (("n_bins", 10_000), ("resamples", 1_000_000)):  # settings of others must not fill the memory
            if getattr(self, key) > most:
                raise UserError(f"metric.{key}={getattr(self, key)}: must be {most:,} or less.")
        if self.quantized_cost is not None and not 0 < self.quantized_cost < math.inf:
            raise UserError(f"metric.quantized_cost={self.quantized_cost}: a finite number above 0, or null.")
        for key in ("confidence_level", "alpha"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(f"metric.{key}={getattr(self, key)}: a number between 0 and 1.")


def _functions_by_name(own: object) -> dict[str, str]:
    """Return `metric.own` as name → module.function."""
    if isinstance(own, list) and all(isinstance(path, str) for path in own):
        by_name = {path.rpartition(".")[2]: path for path in own}
        if len(by_name) < len(own):
            raise UserError(f"metric.own={own}: two functions have one name. Name the metrics: {{name: module.function}}.")
        return by_name
    if own is None or (isinstance(own, dict) and all(isinstance(path, str) for path in own.values())):
        return {str(name): path for name, path in (own or {}).items()}
    raise UserError(f"metric.own={own}: give functions as {{name: module.function}}, or as a list [module.function].")
