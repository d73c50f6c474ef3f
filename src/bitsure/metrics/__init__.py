"""Arrays of answers in, named numbers with intervals out; nothing here reads a file."""

from bitsure.metrics.questions import QuestionSet, question_set
from bitsure.metrics.run_metrics import measure
from bitsure.metrics.statistic import Statistic, SumStatistic, mean

__all__ = ["QuestionSet", "Statistic", "SumStatistic", "mean", "measure", "question_set"]
