"""Two runs whose records are all equal: what that says of the questions asked, and what it leaves open of others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bitsure.metrics.metric_names import QUESTIONS_EQUAL, QUESTIONS_JOINED
from bitsure.results.measurement import Difference
from bitsure.results.verdict import NON_INFERIOR, NOT_JUDGED, Decision


def records_if_equal(tasks: Collection[Mapping[str, Difference]]) -> int | None:
    """Return how many records were compared if every one is equal in both runs; None if one differs.

    Args:
        tasks: The tasks' parts of a comparison.
    """
    joined, equal = (
        sum(int(values[name].value or 0) for values in tasks if name in values) for name in (QUESTIONS_JOINED, QUESTIONS_EQUAL)
    )
    return joined if joined == equal > 0 else None


def equal_sentences(n: int, decision: Decision, sentence: str, settles: str) -> tuple[str, str]:
    """Return the two lines of a verdict on equal records: there is nothing to decide about the questions asked.

    Intervals are about other questions, of which equal records are a sample: no flip in few questions does not show that flips
    are rare.

    Args:
        n: How many records were compared.
        decision: The verdict by intervals.
        sentence: What it says.
        settles: What would settle it; empty where nothing would.
    """
    same = f"ll {n:,} records are equal: log-probabilities and answers are the same in both runs."
    if decision == NON_INFERIOR:
        return f"You may ship it: a{same}", settles
    if decision == NOT_JUDGED:
        return f"A{same}", f"{sentence} {settles}".strip()
    others = settles or sentence.partition(": ")[2]
    return f"A{same}", f"Other questions may differ: {others[0].lower()}{others[1:]}"
