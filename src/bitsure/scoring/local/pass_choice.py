"""Which way to run requests a model allows: the fastest that gives the numbers of plain passes on a few of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitsure.models.load import BUILD_ERRORS
from bitsure.models.size import width_of
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.scoring.journal import Journal
from bitsure.scoring.local.batch_runner import BatchRunner
from bitsure.scoring.local.padding import rows_padded_together
from bitsure.scoring.local.passes import WAYS, Passes, one_by_one, padded, padded_to, sharing
from bitsure.scoring.local.rows import chains, trees
from bitsure.scoring.local.trial import padding_changes, why_no_copies, why_no_copies_by_token, why_no_trees
from bitsure.scoring.requests import Request, Requests, Scored, input_tokens

log = logging.getLogger(__name__)

# How far log-probabilities of two ways to run a request may be apart: nats, and nats per nat of the log-probability.
TOLERANCE = {"float32": (1e-4, 1e-6), "bfloat16": (0.3, 1e-2), "float16": (0.05, 2e-3)}
CHECKED_CHOICES = (2, 1)  # of the first and of the second question that every run scores in two ways, at least
CHECKED_TOKENS = 384  # of the inputs of all checked choices, where the least number of them is shorter
LEAST_SAVED = 10  # times fewer tokens that are worth reading on one token at a time


@dataclass(frozen=True)
class Change:
    """A log-probability that differs between two ways to run its request, nats."""

    expected: float
    now: float

    @property
    def size(self) -> float:
        """How far they are apart, nats."""
        return abs(self.now - self.expected)


class PassChoice:
    """Chooses how a model's requests are run.

    Args:
        runner: Runs batches through the model.
        share: Whether prefixes may be shared.
        rounding: The hooks that round the model's activations, keys and values.
    """

    def __init__(self, runner: BatchRunner, share: bool, rounding: InferenceRounding) -> None:
        self._runner, self._share, self._rounding = runner, share, rounding
        self._model, self._width = runner.model, width_of(runner.model)
        self._checked_length = dict.fromkeys(WAYS, 0)  # way → tokens of the longest input for which it was checked
        self._padded_length = 0  # tokens that an input was padded to without a change of its log-probabilities

    def fastest(self, requests: Requests, ways: Sequence[str] = tuple(WAYS)) -> Passes:
        """Return how these requests are run: the fastest of some ways that gives the numbers of plain passes on a few."""
        few = few_questions(requests)
        why_not: str | None = "scoring.share=false"
        if self._share:
            checked = {**few, **_longest(requests)}
            for way in ways:
                message = WAYS[way]
                why_not = self.why_not(way, requests) or self._why_other(way, checked)
                if why_not is None:
                    log.info(message)
                    return sharing(way, self._width)
                log.info("%s: no: %s", message, why_not)
        log.info("prefixes are not shared: %s", why_not)
        with self._rounding.exact():
            alone = padding_changes(self._model)
        if alone:
            log.warning("each input is run by itself: padding, or the inputs beside it, change its log-probabilities")
        return one_by_one() if alone or self._padding_changes(requests, few) else padded(self._model)

    def why_not(self, way: str, requests: Requests) -> str | None:
        """Return why requests cannot be run in a way, whatever the numbers are; None if they can."""
        with self._rounding.exact():
            match way:
                case "trees":
                    return why_no_trees(self._model, max(map(_length, requests.values())))
                case "copies":
                    return why_no_copies(self._model)
        most = self._runner.budget.tokens
        saved = sum(map(_length, requests.values())) / sum(map(len, trees(requests, most, most)))
        if saved < LEAST_SAVED:
            return (
                f"inputs have {saved:.1f} times as many tokens as are left when prefixes are shared, and it takes {LEAST_SAVED}"
            )
        with self._rounding.exact():
            return why_no_copies_by_token(self._model)

    def _why_other(self, way: str, some: Requests) -> str | None:
        """Return why requests cannot be run in a way: it fails, or changes numbers beyond TOLERANCE; None if neither."""
        length = max(map(_length, some.values()))
        if length <= self._checked_length[way]:
            return None
        try:
            change = self._change(some, one_by_one(), sharing(way, self._width))
        except BUILD_ERRORS as error:  # of a family whose code takes short inputs in this way, and not these
            log.info("%s's own error", type(self._model).__name__, exc_info=error)
            return "the model's code fails on these inputs"
        if change:
            return (
                f"it gives {change.now:.6f} where a plain pass gives {change.expected:.6f} ({self._tolerance()}), so that this "
                "way is left out"
            )
        self._checked_length[way] = length
        return None

    def _padding_changes(self, requests: Requests, few: Requests) -> bool:
        """Return whether an input gets another log-probability beyond TOLERANCE when it is padded as it is in a batch."""
        for group in rows_padded_together(self._model, chains(requests)):
            longest = max(map(len, group))
            short = {i: few[i] for row in group if len(row) < longest for i in row.scored if i in few}
            if not short or longest <= self._padded_length:
                continue
            if change := self._change(short, one_by_one(), padded_to(longest)):
                log.warning(
                    "an input padded to %d tokens gets %.6f where it gets %.6f by itself (%s): each input is run by itself",
                    longest,
                    change.now,
                    change.expected,
                    self._tolerance(),
                )
                return True
            self._padded_length = longest
        return False

    def _change(self, few: Requests, reference: Passes, passes: Passes) -> Change | None:
        """Return the first log-probability that differs between two ways to run requests, beyond TOLERANCE.

        Activations, keys and values are not rounded meanwhile: a difference of 1e-7 can move a value across the border between
        two codes, which then differ by a whole step.
        """
        with self._rounding.exact():
            expected, now = self._run(few, reference), self._run(few, passes)
        absolute, relative = TOLERANCE[self._dtype]
        changes = [Change(expected[i].logprob, now[i].logprob) for i in expected if math.isfinite(expected[i].logprob)]
        return next((change for change in changes if not change.size <= absolute + relative * abs(change.expected)), None)

    def _run(self, few: Requests, passes: Passes) -> dict[int, Scored]:
        journal = Journal()
        journal.begin(self._runner.budget.limits)
        return {i: scored for batch in self._runner.run(few, passes, journal, {}) for i, scored in batch.items()}

    @property
    def _dtype(self) -> str:
        return str(self._model.dtype).removeprefix("torch.")

    def _tolerance(self) -> str:
        absolute, relative = TOLERANCE[self._dtype]
        return f"in {self._dtype} they may differ by {absolute} + {relative} of it"


def _length(request: Request) -> int:
    return len(input_tokens(request))


def _longest(requests: Requests) -> Requests:
    """Return the request with the longest input: a sliding window or the like shows in no shorter one."""
    longest = max(requests, key=lambda i: _length(requests[i]))
    return {longest: requests[longest]}


def few_questions(requests: Requests) -> Requests:
    """Return the requests with which sharing prefixes, or padding, is checked.

    Returns:
        Of the two questions with the shortest inputs at least CHECKED_CHOICES choices, and more of their choices as long as all
        inputs together have at most CHECKED_TOKENS tokens.
    """
    questions: dict[tuple[int, ...], list[int]] = {}
    for i, request in requests.items():
        questions.setdefault(tuple(request[0]), []).append(i)
    few, tokens = {}, 0
    shortest = sorted(questions.values(), key=lambda question: len(input_tokens(requests[question[0]])))
    for question, least in zip(shortest, CHECKED_CHOICES, strict=False):
        for place, i in enumerate(question):
            tokens += len(input_tokens(requests[i]))
            if place < least or tokens <= CHECKED_TOKENS:
                few[i] = requests[i]
    return few
