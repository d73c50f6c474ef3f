"""The metrics of one model's answers to questions with choices, by name."""

from __future__ import annotations

from typing import Any

from bitsure.config.metric import MetricSettings
from bitsure.metrics import calibration
from bitsure.metrics.bins import Bins, ConfidentAnswers
from bitsure.metrics.metric_names import ECE
from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.ranking import Aurc, Auroc
from bitsure.metrics.smooth_calibration import smooth_calibration_error
from bitsure.metrics.statistic import Statistic, SumStatistic, mean, proportion

BRIER_SCORE, BRIER_SCORE_SET = "brier_score", "brier_score_set"
CLASSWISE = "classwise_calibration_error"


def choice_metrics(questions: QuestionSet, settings: MetricSettings) -> dict[str, Statistic[Any]]:
    """Return every metric of these questions.

    Questions with several right choices have another Brier score, under another name. The class-wise error exists only where
    the choices have a fixed meaning.

    Args:
        questions: The questions whose confidences quantile bins are taken from.
        settings: Number and kind of the bins.
    """
    bins = confidence_bins(questions, settings)
    metrics: dict[str, Statistic[Any]] = {
        "accuracy": proportion(lambda q: q.correct),
        "confidence": mean(lambda q: q.confidence, least=0.0, most=1.0),
        "confidence_correct": mean(lambda q: q.confidence, among=lambda q: q.correct, least=0.0, most=1.0),
        "confidence_wrong": mean(lambda q: q.confidence, among=lambda q: 1 - q.correct, least=0.0, most=1.0),
        "true_label_prob": mean(lambda q: q.true_label_prob, least=0.0, most=1.0),
        "entropy": mean(lambda q: q.entropy, least=0.0),
        "margin": mean(lambda q: q.margin, least=0.0, most=1.0),
        "nll": mean(lambda q: q.nll, least=0.0),
        BRIER_SCORE_SET if questions.several_gold else BRIER_SCORE: mean(lambda q: q.brier_score, least=0.0, most=2.0),
        "overconfidence": mean(lambda q: q.confidence - q.correct, least=-1.0, most=1.0),
        ECE: calibration.expected_calibration_error(bins),
        "debiased_squared_calibration_error": calibration.debiased_squared_error(bins),
        "smooth_calibration_error": smooth_calibration_error(),
        "maximum_calibration_error": calibration.maximum_calibration_error(bins),
        "rms_calibration_error": calibration.rms_calibration_error(bins),
        **calibration.brier_parts(bins),
        "auroc": Auroc(),
        "aurc": Aurc(),
        "aurc_excess": Aurc(excess=True),
    }
    if _choices_have_a_meaning(questions):
        metrics[CLASSWISE] = calibration.classwise_calibration_error(Bins.uniform(settings.n_bins))
    return metrics


def accuracy_above_guessing() -> SumStatistic[QuestionSet]:
    """Return the accuracy less that of guessing.

    That of two models differs as their accuracies do, so it is given for one model alone.
    """
    return mean(lambda q: q.correct - q.guessed, least=-1.0, most=1.0)


def confidence_bins(questions: ConfidentAnswers, settings: MetricSettings) -> Bins:
    """Return the confidence bins that the settings name; quantiles are those of these questions."""
    if settings.binning == "uniform":
        return Bins.uniform(settings.n_bins)
    return Bins.quantile(questions.confidence, settings.n_bins)


def _choices_have_a_meaning(questions: QuestionSet) -> bool:
    """Return whether all questions have the same choices, such as no and yes, and these are not just letters or digits."""
    texts = questions.fixed_choices or ()
    return len(questions) > 1 and not questions.several_gold and any(len(text.strip()) > 1 for text in texts)
