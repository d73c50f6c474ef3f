"""What sentences on a verdict call its metrics, and what they are counted over."""

from __future__ import annotations

from collections.abc import Collection

from bitsure.comparison.losses import TEXT_NLL
from bitsure.metrics.metric_names import CALIBRATION

LABELS = {
    "accuracy": "accuracy",
    "nll": "negative log-likelihood",
    TEXT_NLL: "negative log-likelihood per token",
    CALIBRATION: "debiased calibration error",
}
SHORT_LABELS = {"nll": "NLL", TEXT_NLL: "NLL per token", CALIBRATION: "calibration"}  # where a line has little room
ROOT_OF_MEAN = "root of the tasks' mean square"  # what the calibration error of several tasks together is
UNITS = {"nll": " nats", TEXT_NLL: " nats"}


def counted(metrics: Collection[str]) -> str:
    """Return what is counted; whole texts, which have no accuracy, are no questions."""
    return "questions" if "accuracy" in metrics else "documents or windows"
