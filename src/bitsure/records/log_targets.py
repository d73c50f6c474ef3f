"""The ways to read which choices are right from a log: an index, a choice's text, a list, labels, a column of the document."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from bitsure.records.log_lines import Gold, LoggedQuestion

WITH_GOLD = ("f1", "mcc", "brier_score", "likelihood")  # metrics that the harness logs as (gold, value)
BBQ_COLUMNS = ("context_condition", "question_polarity")
BBQ_PEOPLE = 2  # its first choices; all others say that the answer is not known


def logged_with_metric(question: LoggedQuestion) -> Gold | None:
    """Return the right choices that stand beside a metric's value; none, if the harness itself knew none; None without such."""
    for metric in WITH_GOLD:
        value = question.sample.get(metric)
        if isinstance(value, list) and len(value) == 2:
            return _all_of(value[0], lambda part: _in_range(part, question)) or []
    return None


def document_labels(question: LoggedQuestion) -> Gold | None:
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
    return _all_of(_parsed(question.sample["target"]), lambda part: _index(part, question))


def _text(question: LoggedQuestion) -> Gold | None:
    """Read the target as a choice's text, as the harness reads a column of texts."""
    return _all_of(question.sample["target"], lambda part: _place(part, question))


def _listed_text(question: LoggedQuestion) -> Gold | None:
    """Read the target as a list of choices' texts."""
    return _all_of(_parsed(question.sample["target"]), lambda part: _place(part, question))


def _truth_value(question: LoggedQuestion) -> Gold | None:
    """Read True as 1 and False as 0, which they are in Python."""
    number = {"True": 1, "False": 0}.get(str(question.sample["target"]))
    return _all_of(number, lambda part: _in_range(part, question))


def _bbq(question: LoggedQuestion) -> Gold | None:
    """Read BBQ, where all ways to say that the answer is not known are right together."""
    gold, doc = _index_or_text(question), question.sample["doc"]
    if not gold or not isinstance(doc, dict) or not all(column in doc for column in BBQ_COLUMNS):
        return None
    return list(range(BBQ_PEOPLE, len(question.choices))) if gold[0] >= BBQ_PEOPLE else gold


def column_readings(questions: Sequence[LoggedQuestion]) -> list[list[Gold | None]]:
    """Return what each column of the documents names in every question: an index from 0 or 1, a letter, a choice's text."""
    names = [name for name, value in _document(questions[0]).items() if isinstance(value, int | str)]
    ways = (_from_zero, _from_one, _letter, _place)
    return [[_named_by(question, name, way) for question in questions] for name in names for way in ways]


def _named_by(question: LoggedQuestion, name: str, way: Callable[[Any, LoggedQuestion], int | None]) -> Gold | None:
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
    places = [place(part) for part in (value if isinstance(value, list) else [value])]
    known = [index for index in places if index is not None]
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


def _document(question: LoggedQuestion) -> dict[str, Any]:
    doc = question.sample["doc"]
    return doc if isinstance(doc, dict) else {}


TARGET_READINGS: tuple[Callable[[LoggedQuestion], Gold | None], ...] = (_index_or_text, _text, _listed_text, _truth_value, _bbq)
"""The ways to read a target, the likelier first; None where a question cannot be read so."""
