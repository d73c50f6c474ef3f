"""What the harness made of the answers of a task: the filtered answer, and whether it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from bitsure.base.errors import UserError
from bitsure.records.generations import HarnessScore, WrittenAnswer
from bitsure.records.record import cluster_of
from bitsure.scoring.generation.generation_request import Generation
from bitsure.scoring.generation.harness_requests import AskedAnswer
from bitsure.tasks.answer_filters import filter_each
from bitsure.tasks.protocols import HarnessTask, Sample

RIGHT = 0.5  # of a metric between 0 and 1, such as F1, from which on an answer counts as right


@dataclass(frozen=True)
class AnswerText:
    """An answer that was written: what was asked, its tokens, and the text that the harness got."""

    asked: AskedAnswer
    generation: Generation
    text: str
    tokenizer: str
    """A hash of the vocabulary that its tokens are of."""
    is_drawn: bool
    """Whether it was drawn beside the answers that the harness asks for."""
    p_true: float | None = None
    """The probability that the model gives to its being true; None if it was not asked."""

    @property
    def columns(self) -> dict[str, Any]:
        """What `WrittenAnswer` has of the answer itself."""
        cut = self.asked.prompt_tokens_cut
        read = {"prompt_tokens": len(self.asked.request.prompt), "prompt_tokens_cut": cut, "text": self.text}
        return read | vars(self.generation) | {"is_drawn": self.is_drawn, "p_true": self.p_true, "tokenizer": self.tokenizer}


def written_answers(
    name: str, task: HarnessTask, samples: Sequence[Sample], written: Mapping[tuple[str, int], Sequence[AnswerText]]
) -> list[WrittenAnswer]:
    """Return a task's answers, sample after sample of each question.

    Of several samples the first has what the harness made of all of them. Those that are drawn beside are filtered each by
    itself, as the judged answer is.

    Args:
        name: The task's name.
        task: The task.
        samples: The harness's samples, each question once for each of the task's filters.
        written: (task, question's number) → its answers.

    Raises:
        UserError: If the task has metrics, and none says of a single answer how right it is.
    """
    by_filter: dict[str, list[Sample]] = {}
    for sample in samples:
        by_filter.setdefault(sample["filter"], []).append(sample)
    by_question: dict[int, list[HarnessScore]] = {}
    for sample in samples:
        by_question.setdefault(sample["doc_id"], []).extend(_scores(sample))
    metric, filter_name = _judging_metric(name, by_filter) if _has_metrics(samples) else (None, samples[0]["filter"])
    judged = by_filter[filter_name]
    drawn = [(sample, answer.text) for sample in judged for answer in written[name, sample["doc_id"]] if answer.is_drawn]
    filtered = iter(filter_each(task, filter_name, [sample["doc"] for sample, _ in drawn], [text for _, text in drawn]))
    rows = []
    for sample in judged:
        harness_answer = str(sample["filtered_resps"][0])
        for k, answer in enumerate(written[name, sample["doc_id"]]):
            first = k == 0
            rows.append(
                WrittenAnswer(
                    task=name,
                    doc_id=sample["doc_id"],
                    sample=k,
                    doc_hash=sample["doc_hash"],
                    prompt_hash=sample["prompt_hash"],
                    target_hash=sample["target_hash"],
                    cluster=cluster_of(sample["doc"], sample["prompt_hash"]),
                    filtered=harness_answer if first else next(filtered) if answer.is_drawn else None,
                    target=str(sample["target"]),
                    correct=float(sample[metric]) >= RIGHT if first and metric else None,
                    correct_by=f"{metric},{filter_name}" if metric else "",
                    scores=by_question[sample["doc_id"]] if first else [],
                    **answer.columns,
                )
            )
    return rows


def _has_metrics(samples: Sequence[Sample]) -> bool:
    """Return whether the harness judges a task's answers: open questions have no right ones, and no metric but its bypass."""
    return not {metric for sample in samples for metric in sample["metrics"]} <= {"bypass"}


def _judging_metric(name: str, by_filter: Mapping[str, Sequence[Sample]]) -> tuple[str, str]:
    """Return the metric, and its filter, that says whether answers are right.

    It is the first that is 0 or 1 of every answer; else the first that is between them, from RIGHT on.
    """
    candidates = [
        (metric, filter_name, [sample[metric] for sample in samples])
        for filter_name, samples in by_filter.items()
        for metric in samples[0]["metrics"]
        if all(isinstance(sample[metric], Real) for sample in samples)
    ]
    for allowed in (lambda value: value in (0, 1), lambda value: 0 <= value <= 1):
        for metric, filter_name, values in candidates:
            if all(map(allowed, values)):
                return metric, filter_name
    metrics = ", ".join(dict.fromkeys(metric for samples in by_filter.values() for metric in samples[0]["metrics"]))
    raise UserError(
        f"task {name}: none of its metrics ({metrics}) is a number from 0 to 1 of each answer, so that none is right or wrong. "
        "Leave the task out, or add such a metric, as exact_match is, to its metric_list."
    )


def _scores(sample: Sample) -> list[HarnessScore]:
    return [
        {"filter": sample["filter"], "metric": metric, "value": float(sample[metric])}
        for metric in sample["metrics"]
        if isinstance(sample[metric], Real)
    ]
