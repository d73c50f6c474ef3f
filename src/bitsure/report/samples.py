"""Pick the questions whose answers changed most, to be read one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitsure.base.plain_text import ending
from bitsure.metrics.questions import question_set
from bitsure.metrics.text_metrics import answers
from bitsure.records.joining import Join
from bitsure.records.record import Record, by_task, has_choices, is_text, to_records

SHOWN = 20  # questions of each task
SUMMARY = 100  # characters of a prompt that is folded
LONGEST = 600  # characters of a prompt or a choice


@dataclass(frozen=True)
class ShownChoice:
    """One choice of a question that is shown."""

    text: str
    is_right: bool
    before: float  # its probability in full precision
    after: float  # its probability after quantization


@dataclass(frozen=True)
class ChangedQuestion:
    """One question before and after quantization."""

    doc_id: int
    prompt: str | None  # the end of it, if it is long
    change: float  # of the right answer's probability
    choices: list[ShownChoice]

    @property
    def summary(self) -> str:
        """The last words of the prompt; `choices` where there is none."""
        return ending(self.prompt, SUMMARY) if self.prompt else "choices"

    @property
    def before(self) -> float:
        """The right answer's probability in full precision, in [0, 1]."""
        return sum(choice.before for choice in self.choices if choice.is_right)

    @property
    def after(self) -> float:
        """The right answer's probability after quantization, in [0, 1]."""
        return sum(choice.after for choice in self.choices if choice.is_right)

    @property
    def outcome(self) -> str:
        """Whether the answer was right before and after, such as `right → wrong`; empty for a continuation."""
        if len(self.choices) == 1:
            return ""
        answers = (max(self.choices, key=attrgetter(side)) for side in ("before", "after"))
        return " → ".join("right" if answer.is_right else "wrong" for answer in answers)


def most_changed(joined: Join, prompts: Mapping[tuple[str, int], str], normalization: str) -> dict[str, list[ChangedQuestion]]:
    """Return task → the questions whose right answer gained or lost most probability.

    Args:
        joined: The questions of both runs; whole texts, which have no right answer, are left out.
        prompts: (task, doc_id) → prompt.
        normalization: What choices' log-probabilities are divided by.
    """
    baseline, changed = by_task(joined.baseline), {}
    for task, quantized in by_task(joined.quantized).items():
        if is_text(quantized):
            continue
        before, after = (answers(rows, normalization).true_label_prob for rows in (baseline[task], quantized))
        places = np.argsort(-np.abs(after - before), kind="stable")[:SHOWN]
        rows = (baseline[task].take(places), quantized.take(places))
        changed[task] = [
            ChangedQuestion(record.doc_id, _end(prompts.get((task, record.doc_id))), float(after[i] - before[i]), choices)
            for i, record, choices in zip(places, to_records(rows[1]), _choices(*rows, normalization), strict=True)
        ]
    return changed


def _choices(baseline: pa.Table, quantized: pa.Table, normalization: str) -> list[list[ShownChoice]]:
    """Return the choices of each question; a continuation is the only, right one."""
    records = to_records(quantized)
    if not has_choices(quantized):
        before, after = (answers(rows, normalization).true_label_prob for rows in (baseline, quantized))
        return [
            [ShownChoice(record.choices[0][:LONGEST], True, float(was), float(now))]
            for record, was, now in zip(records, before, after, strict=True)
        ]
    full, low_bit = question_set(baseline, normalization), question_set(quantized, normalization)
    starts = full.starts[:-1].tolist()
    return [_shown(record, full.p[first:], low_bit.p[first:]) for record, first in zip(records, starts, strict=True)]


def _shown(record: Record, before: NDArray[np.float64], after: NDArray[np.float64]) -> list[ShownChoice]:
    return [
        ShownChoice(text[:LONGEST], k in record.gold, float(before[k]), float(after[k]))
        for k, text in enumerate(record.choices)
    ]


def _end(prompt: str | None) -> str | None:
    return prompt if prompt is None else ending(prompt, LONGEST)
