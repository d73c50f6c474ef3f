"""Which choices of a log's questions are right, as the harness read the task when it took the log's own metrics.

A log has the target as text: "1" may be an index or a choice. Every way of reading it is tried on all questions of a task; only
those that give the log's own `acc` on each of them are kept, and where the rest disagree about a question it is refused.
"""

from __future__ import annotations

import ast
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from bitsure.base.errors import UserError
from bitsure.records.log_lines import LoggedQuestion

log = logging.getLogger(__name__)

Gold: TypeAlias = list[int]  # indices of the right choices
Reading: TypeAlias = Callable[[LoggedQuestion], Gold | None]  # None where the question cannot be read so

TOLERANCE = 1e-6  # relative, of a log-likelihood or a probability that the log has twice
WITH_GOLD = ("f1", "mcc", "brier_score", "likelihood")  # metrics that the harness logs as (gold, value)
BBQ_COLUMNS = ("context_condition", "question_polarity")
BBQ_PEOPLE = 2  # its first choices; all others say that the answer is not known


def right_choices(task: str, questions: Sequence[LoggedQuestion]) -> list[Gold]:
    """Return the indices of the right choices of each question of a task.

    Raises:
        UserError: If no reading agrees with the log's own metrics, or several do and differ; a question is named.
    """
    if not any(_number(question.sample.get("acc")) is not None or question.is_text for question in questions):
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
    labels = [gold for question in questions if (gold := _labels(question))]
    if len(labels) == len(questions) and all(map(_has_probability, questions, labels)):
        return labels
    return _settled(task, questions, list(_readings(questions)))


def _check_single(task: str, question: LoggedQuestion) -> None:
    """Raise UserError if a continuation or a whole text is not what the log's target and metrics say it is."""
    sample, (logprob, greedy) = question.sample, question.scores[0]
    if question.is_text:
        pairs = [sample.get(metric) for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
        theirs = [_number(pair[0]) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
        if any(value is not None and abs(value - logprob) > TOLERANCE * abs(logprob) for value in theirs):
            raise UserError(f"{question.where}: the log-likelihood is {logprob} as a response, {theirs} in the metrics.")
        return
    target = str(sample["target"])
    if target.encode("utf-8", "replace").decode().strip() != question.choices[0].strip():
        raise UserError(
            f"{question.where}: one continuation {question.choices[0]!r} was scored and the target is {target!r}; a task has "
            "two or more choices, or scores its target."
        )
    acc = _number(sample.get("acc"))
    if acc is not None and acc != float(greedy):
        raise UserError(
            f"{question.where}: the log's acc of task {task} is {acc}, the continuation is "
            f"{'' if greedy else 'not '}the greedy one. No number of the log is reported."
        )


def _readings(questions: Sequence[LoggedQuestion]) -> Iterator[list[Gold | None]]:
    """Yield what each reading gives for every question; the likelier readings come first."""
    logged = [_logged_with_metric(question) for question in questions]
    if all(gold is not None for gold in logged) and not any(map(_contradicts_acc, questions, logged)):
        yield logged  # the harness's own; nothing is left to read
        return
    if all(_is_common_ending(question) for question in questions):
        yield from _choices_first(questions)
        return
    for reading in (_index_or_text, _text, _listed_text, _truth_value, _bbq):
        yield [reading(question) for question in questions]


def _settled(task: str, questions: Sequence[LoggedQuestion], readings: Sequence[Sequence[Gold | None]]) -> list[Gold]:
    """Return the one answer of the readings that agree with the log's metrics."""
    whole = [[gold for gold in golds if gold] for golds in readings]
    whole = [golds for golds in whole if len(golds) == len(questions)]
    if not whole:
        raise UserError(_unreadable(questions, readings[0]))
    agreeing = [golds for golds in whole if _first_contradiction(questions, golds, ("acc",)) is None]
    if not agreeing:
        row = _first_contradiction(questions, whole[0], ("acc",)) or 0
        raise UserError(
            f"{questions[row].where}: the log's acc of task {task} is {questions[row].sample['acc']}; with the target "
            f"{questions[row].sample['target']!r} read as choice {whole[0][row]} the most likely choice, "
            f"{questions[row].best}, gives another. The log cannot be read; no number of it is reported."
        )
    if len({str(golds) for golds in agreeing}) > 1:  # the other metrics need the choices' exact texts, so they decide only here
        others = ("exact_match", "acc_mutual_info", "acc_norm", "acc_bytes")
        agreeing = [golds for golds in agreeing if _first_contradiction(questions, golds, others) is None] or agreeing
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


def _first_contradiction(questions: Sequence[LoggedQuestion], golds: Sequence[Gold], metrics: Sequence[str]) -> int | None:
    rows = enumerate(zip(questions, golds, strict=True))
    return next((i for i, (question, gold) in rows if not all(_agrees(question, gold, metric) for metric in metrics)), None)


def _agrees(question: LoggedQuestion, gold: Gold, metric: str) -> bool:
    """Return whether a metric of the log is what it would be if `gold` were right; true where the log does not have it."""
    theirs = _number(question.sample.get(metric))
    if theirs is None or not all(math.isfinite(logprob) for logprob, _ in question.scores):
        return True
    return theirs == _METRICS[metric](question, gold)


def _contradicts_acc(question: LoggedQuestion, gold: Gold | None) -> bool:
    return bool(gold) and not _agrees(question, gold or [], "acc")


def _has_probability(question: LoggedQuestion, gold: Gold) -> bool:
    """Return whether the log's acc is the probability of the right choices, which TruthfulQA's mc2 calls so."""
    theirs = _number(question.sample.get("acc"))
    probabilities = np.exp([logprob for logprob, _ in question.scores])  # as the harness computes it
    total = float(probabilities.sum())
    if theirs is None or not total:
        return True
    ours = float(probabilities[gold].sum()) / total
    return abs(theirs - ours) <= TOLERANCE * ours


def _best_per(question: LoggedQuestion, lengths: Sequence[int]) -> int:
    return int(np.argmax([logprob / max(n, 1) for (logprob, _), n in zip(question.scores, lengths, strict=True)]))


def _mutual(question: LoggedQuestion, gold: Gold) -> float | None:
    if not question.unconditional or len(gold) != 1:  # of several right choices the harness's own is always 0
        return _number(question.sample.get("acc_mutual_info"))
    pairs = zip(question.scores, question.unconditional, strict=True)
    return float(int(np.argmax([score[0] - alone[0] for score, alone in pairs])) in gold)


_METRICS: dict[str, Callable[[LoggedQuestion, Gold], float | None]] = {
    "acc": lambda question, gold: float(question.best in gold),
    "exact_match": lambda question, gold: float(any(question.scores[i][1] for i in gold)),
    "acc_norm": lambda question, gold: float(_best_per(question, [len(c) for c in question.choices]) in gold),
    "acc_bytes": lambda question, gold: float(_best_per(question, [len(c.encode()) for c in question.choices]) in gold),
    "acc_mutual_info": _mutual,
}


def _logged_with_metric(question: LoggedQuestion) -> Gold | None:
    """Return the right choices that stand beside a metric's value; none, if the harness itself knew none; None without such."""
    for metric in WITH_GOLD:
        value = question.sample.get(metric)
        if isinstance(value, list) and len(value) == 2:
            return _all_of(value[0], lambda one: _in_range(one, question)) or []
    return None


def _labels(question: LoggedQuestion) -> Gold | None:
    """Read the document's labels, as TruthfulQA's mc2 does, whose target is 0 for every question."""
    doc = question.sample["doc"]
    mc2 = doc.get("mc2_targets") if isinstance(doc, dict) else None
    labels = mc2.get("labels") if isinstance(mc2, dict) else None
    if not isinstance(labels, list) or len(labels) != len(question.choices):
        return None
    texts = mc2.get("choices") if isinstance(mc2, dict) else None
    if isinstance(texts, list) and [str(text).strip() for text in texts] != [choice.strip() for choice in question.choices]:
        return None
    return [i for i, label in enumerate(labels) if label]


def _index_or_text(question: LoggedQuestion) -> Gold | None:
    """Read digits as an index and anything else as a choice's text, as the harness reads a template's result."""
    return _all_of(_parsed(question.sample["target"]), lambda one: _index(one, question))


def _text(question: LoggedQuestion) -> Gold | None:
    """Read the target as a choice's text, as the harness reads a column of texts."""
    return _all_of(question.sample["target"], lambda one: _place(one, question))


def _listed_text(question: LoggedQuestion) -> Gold | None:
    """Read the target as a list of choices' texts."""
    return _all_of(_parsed(question.sample["target"]), lambda one: _place(one, question))


def _truth_value(question: LoggedQuestion) -> Gold | None:
    """Read True as 1 and False as 0, which they are in Python."""
    number = {"True": 1, "False": 0}.get(str(question.sample["target"]))
    return _all_of(number, lambda one: _in_range(one, question))


def _bbq(question: LoggedQuestion) -> Gold | None:
    """Read BBQ, where all ways to say that the answer is not known are right together."""
    gold, doc = _index_or_text(question), question.sample["doc"]
    if not gold or not isinstance(doc, dict) or not all(column in doc for column in BBQ_COLUMNS):
        return None
    return list(range(BBQ_PEOPLE, len(question.choices))) if gold[0] >= BBQ_PEOPLE else gold


def _is_common_ending(question: LoggedQuestion) -> bool:
    """Return whether the target is the ending that all choices stand before, so that it does not name the right one."""
    return question.common_ending is not None and question.common_ending.strip() == str(question.sample["target"]).strip()


def _choices_first(questions: Sequence[LoggedQuestion]) -> Iterator[list[Gold | None]]:
    """Yield the readings of a task whose choices stand before one ending.

    The log's acc says whether the most likely choice is right, which settles two choices. A column of the document may settle
    more, if it names a choice in every question and agrees with acc in each. Without acc no column can be trusted.
    """
    accs = [_number(question.sample.get("acc")) for question in questions]
    by_acc = [_gold_by_acc(question, acc) for question, acc in zip(questions, accs, strict=True)]
    columns: list[list[Gold | None]] = []
    if all(acc is not None for acc in accs):
        names = [name for name, value in _document(questions[0]).items() if isinstance(value, int | str)]
        ways = (_from_zero, _from_one, _letter, _place)
        columns = [[_gold_in(question, name, way) for question in questions] for name in names for way in ways]
    agreeing = [golds for golds in columns if all(g and _agrees(q, g, "acc") for q, g in zip(questions, golds, strict=True))]
    yield from agreeing
    # Where acc is 0 everywhere, the harness may have known no right choice at all.
    yield by_acc if any(acc == 1 for acc in accs) else [None for _ in questions]


def _gold_by_acc(question: LoggedQuestion, acc: float | None) -> Gold | None:
    if acc == 1:
        return [question.best]
    return [1 - question.best] if acc == 0 and len(question.choices) == 2 else None


def _document(question: LoggedQuestion) -> dict[str, Any]:
    doc = question.sample["doc"]
    return doc if isinstance(doc, dict) else {}


def _gold_in(question: LoggedQuestion, name: str, way: Callable[[Any, LoggedQuestion], int | None]) -> Gold | None:
    return _all_of(_document(question).get(name), lambda value: way(value, question))


def _from_zero(value: Any, question: LoggedQuestion) -> int | None:
    return _in_range(_whole(value), question)


def _from_one(value: Any, question: LoggedQuestion) -> int | None:
    number = _whole(value)
    return None if number is None else _in_range(number - 1, question)


def _letter(value: Any, question: LoggedQuestion) -> int | None:
    is_letter = isinstance(value, str) and len(value) == 1 and "A" <= value.upper() <= "Z"
    return _in_range(ord(value.upper()) - ord("A"), question) if is_letter else None


def _index(value: Any, question: LoggedQuestion) -> int | None:
    number = _whole(value)
    return _place(value, question) if number is None else _in_range(number, question)


def _place(value: Any, question: LoggedQuestion) -> int | None:
    """Return which choice has a text."""
    if not isinstance(value, str):
        return None
    text = value.encode("utf-8", "replace").decode().removeprefix(" ")
    return question.choices.index(text) if text in question.choices else None


def _whole(value: Any) -> int | None:
    """Return a whole number that is given as such or by its digits."""
    if isinstance(value, str):
        text = value.removeprefix(" ")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
    return value if isinstance(value, int) else None


def _in_range(value: Any, question: LoggedQuestion) -> int | None:
    return int(value) if isinstance(value, int) and 0 <= value < len(question.choices) else None


def _all_of(value: Any, place: Callable[[Any], int | None]) -> Gold | None:
    """Return the index that each of one or several answers names, without repeats; None if one of them names none."""
    places = [place(one) for one in (value if isinstance(value, list) else [value])]
    known = [one for one in places if one is not None]
    return list(dict.fromkeys(known)) if len(known) == len(places) else None


def _parsed(target: Any) -> Any:
    """Return the list that a text spells, which is how the harness writes several right choices; else the target itself."""
    if not isinstance(target, str) or not target.startswith("["):
        return target
    try:
        parsed = ast.literal_eval(target)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return target
    return parsed if isinstance(parsed, list) else target


def _number(value: Any) -> float | None:
    """Return a metric's value; None if it is none or is not a number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}…"
