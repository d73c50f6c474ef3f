"""Pick the questions whose answers changed most, to be read one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitsure.base.plain_text import ending
from bitsure.config.metric import MetricSettings
from bitsure.metrics.divergence import answer_divergence
from bitsure.metrics.questions import question_set
from bitsure.metrics.text_metrics import answers
from bitsure.metrics.written_answers import answer_set
from bitsure.records.answer_units import have_other_tokens, is_open, is_written
from bitsure.records.joining import Join
from bitsure.records.record import Record, by_task, has_choices, is_text, to_records

SHOWN = 20  # questions of each task
SUMMARY = 100  # characters of a prompt that is folded
OUTCOMES = ("wrong", "right")
LONGEST = 600  # characters of a prompt or a choice


@dataclass(frozen=True)
class ShownChoice:
    """One choice of a question that is shown, or one written answer, with the confidence of the model that wrote it."""

    text: str
    is_right: bool
    before: float | None  # its probability in full precision; None of an answer that full precision did not write
    after: float | None  # its probability after quantization; None of an answer that the quantized model did not write


@dataclass(frozen=True)
class ChangedQuestion:
    """One question before and after quantization."""

    doc_id: int
    prompt: str | None  # the end of it, if it is long
    before: float  # the right answer's probability in full precision, in [0, 1]; of a written answer, that of being what it is
    after: float  # the same after quantization
    outcome: str  # whether the answer was right before and after, such as `right → wrong`; empty for a continuation
    choices: list[ShownChoice]
    divergence: str = ""  # of written answers: the first token that differs, in words; empty where none does

    @property
    def summary(self) -> str:
        """The last words of the prompt; `choices` where there is none."""
        return ending(self.prompt, SUMMARY) if self.prompt else "choices"

    @property
    def change(self) -> float:
        """How much the right answer's probability rose, in [−1, 1]."""
        return self.after - self.before


def most_changed(
    joined: Join, prompts: Mapping[tuple[str, int], str], metric: MetricSettings
) -> dict[str, list[ChangedQuestion]]:
    """Return task → the questions whose right answer gained or lost most probability.

    Args:
        joined: The questions of both runs; whole texts, which have no right answer, are left out.
        prompts: (task, doc_id) → prompt.
        metric: How records become numbers.
    """
    baseline, changed = by_task(joined.baseline), {}
    for task, quantized in by_task(joined.quantized).items():
        if is_text(quantized):
            continue
        full, low_bit = (answers(rows, metric) for rows in (baseline[task], quantized))
        before, after = full.true_label_prob, low_bit.true_label_prob
        has_outcome = has_choices(quantized) or (is_written(quantized) and not is_open(quantized))
        places = np.argsort(-np.abs(after - before), kind="stable")[:SHOWN]
        rows = (baseline[task].take(places), quantized.take(places))
        changed[task] = [
            ChangedQuestion(
                doc_id=record.doc_id,
                prompt=_end(prompts.get((task, record.doc_id))),
                before=float(before[i]),
                after=float(after[i]),
                outcome=f"{OUTCOMES[int(full.correct[i])]} → {OUTCOMES[int(low_bit.correct[i])]}" if has_outcome else "",
                choices=choices,
                divergence=divergence,
            )
            for i, record, choices, divergence in zip(
                places, to_records(rows[1]), _choices(*rows, metric), _divergences(*rows), strict=True
            )
        ]
    return changed


def _written(baseline: pa.Table, quantized: pa.Table, metric: MetricSettings) -> list[list[ShownChoice]]:
    """Return what both models wrote, each answer once."""
    sides = [
        (rows["answer"].to_pylist(), rows["correct"].to_pylist(), answer_set(rows, metric).confidence)
        for rows in (baseline, quantized)
    ]
    shown = []
    for (was, was_right, c), (now, now_right, d) in zip(*(zip(*side, strict=True) for side in sides), strict=True):
        if was == now:
            shown.append([ShownChoice(was[:LONGEST], was_right, float(c), float(d))])
        else:
            shown.append(
                [ShownChoice(was[:LONGEST], was_right, float(c), None), ShownChoice(now[:LONGEST], now_right, None, float(d))]
            )
    return shown


def _divergences(baseline: pa.Table, quantized: pa.Table) -> list[str]:
    """Return where the answers to each question part, in words; empty where they do not, or are not written."""
    if not is_written(quantized) or have_other_tokens(baseline, quantized):
        return [""] * len(quantized)
    divergence = answer_divergence(baseline, quantized)
    columns = (divergence.diverged, divergence.position + 1, *divergence.probabilities, divergence.margin)
    return [
        f"The first token that differs is number {place}: full precision gives {full:.3f} to its own, the quantized model "
        f"{own:.3f} to its own. Full precision's two likeliest are {margin:.3f} apart there."
        if diverged
        else ""
        for diverged, place, full, own, margin in zip(*columns, strict=True)
    ]


def _choices(baseline: pa.Table, quantized: pa.Table, metric: MetricSettings) -> list[list[ShownChoice]]:
    """Return the choices of each question; a continuation is the only, right one."""
    if is_written(quantized):
        return _written(baseline, quantized, metric)
    records = to_records(quantized)
    if not has_choices(quantized):
        before, after = (answers(rows, metric).true_label_prob for rows in (baseline, quantized))
        return [
            [ShownChoice(record.choices[0][:LONGEST], True, float(was), float(now))]
            for record, was, now in zip(records, before, after, strict=True)
        ]
    full, low_bit = (question_set(rows, metric.normalization) for rows in (baseline, quantized))
    starts = full.starts[:-1].tolist()
    return [_shown(record, full.p[first:], low_bit.p[first:]) for record, first in zip(records, starts, strict=True)]


def _shown(record: Record, before: NDArray[np.float64], after: NDArray[np.float64]) -> list[ShownChoice]:
    return [
        ShownChoice(text[:LONGEST], k in record.gold, float(before[k]), float(after[k]))
        for k, text in enumerate(record.choices)
    ]


def _end(prompt: str | None) -> str | None:
    return prompt if prompt is None else ending(prompt, LONGEST)
