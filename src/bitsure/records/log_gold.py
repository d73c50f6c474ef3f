"""Which choices of a log's questions are right, as the harness read the task when it took the log's own metrics.

A log has the target as text: "1" may be an index or a choice. Every way of reading it is tried on all questions of a task; only
those that give the log's own `acc` on each of them are kept, and where the rest disagree about a question it is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from bitsure.base.errors import UserError
from bitsure.records.log_lines import Gold, LoggedQuestion
from bitsure.records.log_metrics import TOLERANCE, agrees, contradicts_acc, first_contradiction, has_probability, metric_value
from bitsure.records.log_targets import TARGET_READINGS, column_readings, document_labels, logged_with_metric

log = logging.getLogger(__name__)


def right_choices(task: str, questions: Sequence[LoggedQuestion]) -> list[Gold]:
    """Return the indices of the right choices of each question of a task.

    Raises:
        UserError: If no reading agrees with the log's own metrics, or several do and differ; a question is named.
    """
    if not any(metric_value(question.sample.get("acc")) is not None or question.is_text for question in questions):
        log.warning("task %s: the log has no metric acc, so our accuracy of it is not checked against the harness's", task)
    single = [len(question.choices) == 1 for question in questions]
    if all(single):
        for question in questions:
            _check_single(task, question)
        return [[0] for _ in questions]
    if any(single):
        where = questions[single.index(True)].where
        raise UserError(
            f"{where}: one choice, while other questions of task {task} have several; a confidence needs two or more."
        )
    labels = [gold for question in questions if (gold := document_labels(question))]
    if len(labels) == len(questions) and all(map(has_probability, questions, labels)):
        return labels
    return _settled(task, questions, list(_readings(questions)))


def _check_single(task: str, question: LoggedQuestion) -> None:
    """Raise UserError if a continuation or a whole text is not what the log's target and metrics say it is."""
    sample, (logprob, greedy) = question.sample, question.scores[0]
    if question.is_text:
        pairs = [sample.get(metric) for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
        theirs = [metric_value(pair[0]) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
        if any(value is not None and abs(value - logprob) > TOLERANCE * abs(logprob) for value in theirs):
            raise UserError(f"{question.where}: the log-likelihood is {logprob} as a response, {theirs} in the metrics.")
        return
    target = str(sample["target"])
    if target.encode("utf-8", "replace").decode().strip() != question.choices[0].strip():
        raise UserError(
            f"{question.where}: one continuation {question.choices[0]!r} was scored and the target is {target!r}; a task has "
            "two or more choices, or scores its target."
        )
    acc = metric_value(sample.get("acc"))
    if acc is not None and acc != float(greedy):
        raise UserError(
            f"{question.where}: the log's acc of task {task} is {acc}, the continuation is "
            f"{'' if greedy else 'not '}the greedy one. No number of the log is reported."
        )


def _readings(questions: Sequence[LoggedQuestion]) -> Iterator[list[Gold | None]]:
    """Yield what each reading gives for every question; the likelier readings come first."""
    logged = [logged_with_metric(question) for question in questions]
    if all(gold is not None for gold in logged) and not any(map(contradicts_acc, questions, logged)):
        yield logged  # the harness's own; nothing is left to read
        return
    if all(_is_common_ending(question) for question in questions):
        yield from _choices_first(questions)
        return
    for reading in TARGET_READINGS:
        yield [reading(question) for question in questions]


def _settled(task: str, questions: Sequence[LoggedQuestion], readings: Sequence[Sequence[Gold | None]]) -> list[Gold]:
    """Return the one answer of the readings that agree with the log's metrics."""
    whole = [[gold for gold in golds if gold] for golds in readings]
    whole = [golds for golds in whole if len(golds) == len(questions)]
    if not whole:
        raise UserError(_unreadable(questions, readings[0]))
    agreeing = [golds for golds in whole if first_contradiction(questions, golds, ("acc",)) is None]
    if not agreeing:
        row = first_contradiction(questions, whole[0], ("acc",)) or 0
        raise UserError(
            f"{questions[row].where}: the log's acc of task {task} is {questions[row].sample['acc']}; with the target "
            f"{questions[row].sample['target']!r} read as choice {whole[0][row]} the most likely choice, "
            f"{questions[row].best}, gives another. The log cannot be read; no number of it is reported."
        )
    if len({str(golds) for golds in agreeing}) > 1:  # the other metrics need the choices' exact texts, so they decide only here
        others = ("exact_match", "acc_mutual_info", "acc_norm", "acc_bytes")
        agreeing = [golds for golds in agreeing if first_contradiction(questions, golds, others) is None] or agreeing
    for row, question in enumerate(questions):
        different = sorted({tuple(golds[row]) for golds in agreeing})
        if len(different) > 1:
            raise UserError(
                f"{question.where}: the target {question.sample['target']!r} of task {task} may mean choice "
                f"{' or '.join(str(list(gold)) for gold in different)} of {question.choices}, and the log's metrics agree with "
                "each. Score the task again with metric acc and more questions."
            )
    return agreeing[0]


def _unreadable(questions: Sequence[LoggedQuestion], golds: Sequence[Gold | None]) -> str:
    """Return the message for a task that no reading fits."""
    row = next((i for i, gold in enumerate(golds) if not gold), 0)
    question = questions[row]
    if question.common_ending is not None and _is_common_ending(question):
        return (
            f"{question.where}: the choices stand before one ending, so the target does not name the right one, and neither "
            "the log's acc nor a column of the document settles which it is."
        )
    return f"{question.where}: the target {_cut(question.sample['target'])} is none of the choices {_cut(question.choices)}."


def _is_common_ending(question: LoggedQuestion) -> bool:
    """Return whether the target is the ending that all choices stand before, so that it does not name the right one."""
    return question.common_ending is not None and question.common_ending.strip() == str(question.sample["target"]).strip()


def _choices_first(questions: Sequence[LoggedQuestion]) -> Iterator[list[Gold | None]]:
    """Yield the readings of a task whose choices stand before one ending.

    The log's acc says whether the most likely choice is right, which settles two choices. A column of the document may settle
    more, if it names a choice in every question and agrees with acc in each. Without acc no column can be trusted.
    """
    accs = [metric_value(question.sample.get("acc")) for question in questions]
    by_acc = [_gold_by_acc(question, acc) for question, acc in zip(questions, accs, strict=True)]
    columns: list[list[Gold | None]] = []
    if all(acc is not None for acc in accs):
        columns = column_readings(questions)
    agreeing = [golds for golds in columns if all(g and agrees(q, g, "acc") for q, g in zip(questions, golds, strict=True))]
    yield from agreeing
    # Where acc is 0 everywhere, the harness may have known no right choice at all.
    yield by_acc if any(acc == 1 for acc in accs) else [None for _ in questions]


def _gold_by_acc(question: LoggedQuestion, acc: float | None) -> Gold | None:
    if acc == 1:
        return [question.best]
    return [1 - question.best] if acc == 0 and len(question.choices) == 2 else None


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}…"
