"""The questions whose answer changed most, to be read one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitsure.metrics.questions import QuestionSet
from bitsure.metrics.texts import TextSet, answers
from bitsure.records.joining import Join
from bitsure.records.record import Record, by_task, is_text, to_records

SHOWN = 6  # of each task
LONGEST = 600  # characters of a prompt


@dataclass(frozen=True)
class ChangedQuestion:
    """One question before and after."""

    task: str
    doc_id: int
    prompt: str | None  # its end, where it is long
    change: float  # of the right answer's probability
    choices: list[tuple[str, bool, float, float]]  # text, whether it is right, probability before and after


def most_changed(joined: Join, prompts: dict[tuple[str, int], str], normalization: str) -> dict[str, list[ChangedQuestion]]:
    """By task, the questions whose right answer gained or lost most probability; none of whole texts."""
    full, found = by_task(joined.baseline), {}
    for task, after in by_task(joined.quantized).items():
        if is_text(after):
            continue
        was, now = answers(full[task], normalization), answers(after, normalization)
        change = now.true_label_prob - was.true_label_prob
        places = np.argsort(-np.abs(change), kind="stable")[:SHOWN]
        found[task] = [
            ChangedQuestion(
                task=task,
                doc_id=record.doc_id,
                prompt=_end(prompts.get((task, record.doc_id))),
                change=float(change[i]),
                choices=_choices(record, was, now, int(i)),
            )
            for i, record in zip(places, to_records(after.take(places)), strict=True)
        ]
    return found


def _choices(
    record: Record, was: QuestionSet | TextSet, now: QuestionSet | TextSet, i: int
) -> list[tuple[str, bool, float, float]]:
    if isinstance(was, TextSet) or isinstance(now, TextSet):
        return [(record.choices[0][:LONGEST], True, float(was.true_label_prob[i]), float(now.true_label_prob[i]))]
    first = was.starts[i]
    return [
        (text[:LONGEST], k in record.gold, float(was.p[first + k]), float(now.p[first + k]))
        for k, text in enumerate(record.choices)
    ]


def _end(prompt: str | None) -> str | None:
    return prompt if prompt is None or len(prompt) <= LONGEST else "… " + prompt[-LONGEST:]
