"""The log-probability of every token of every continuation, each distinct prefix run once.

Requests become rows (`rows.py`), rows become batches within a budget (`budget.py`), batches go through the model
(`forward.py`).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from typing_extensions import override

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.models.load import BUILD_ERRORS
from bitsure.models.offloading import offloaded_parts
from bitsure.models.size import parameters_of, width_of
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.scoring.engine import Engine
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local import forward, state_copies
from bitsure.scoring.local.budget import PROBE_TOKENS, Budget
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.logits_from_states import input_device
from bitsure.scoring.local.offloaded_batches import RunBatches, bring_blocks_once, most_tokens_at_once
from bitsure.scoring.local.padding import pad, rows_padded_together
from bitsure.scoring.local.rows import TreeRow, batches, chains, trees
from bitsure.scoring.local.trial import RunBatch, padding_changes, why_no_copies, why_no_copies_by_token, why_no_trees
from bitsure.scoring.requests import Request, Requests, Scored, input_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# How far log-probabilities of two ways to run a request may be apart: nats, and nats per nat of the log-probability.
TOLERANCE = {"float32": (1e-4, 1e-6), "bfloat16": (0.3, 1e-2), "float16": (0.05, 2e-3)}
CHECKED_CHOICES = (2, 1)  # of the first and of the second question that every run scores in two ways, at least
CHECKED_TOKENS = 384  # of the inputs of all checked choices, where the least number of them is shorter
# Ways to share prefixes, the fastest first → what the log says of them.
WAYS = {
    "trees": "prefixes are shared",
    "copies": "prefixes are shared by copies of the model's state after them",
    "tokens": "prefixes are shared by copies of the model's state, from which one token is read at a time",
}
LEAST_SAVED = 10  # times fewer tokens that are worth reading on one token at a time
PROBE_LENGTH = 128  # tokens of an input of the batch that is measured

IN_FLIGHT = {"cuda": 1}  # batches that a device runs while the next one is prepared; a killed process loses them too


@dataclass(frozen=True)
class Passes:
    """A way to run requests."""

    run: RunBatch
    """Scores the requests of a batch."""
    lay_out: Callable[[Requests, Limits], list[list[TreeRow]]]
    """Returns batches of rows, the longest rows first, given requests and the limits of a batch."""


@dataclass(frozen=True)
class Change:
    """A log-probability that differs between two ways to run its request, nats."""

    expected: float
    now: float

    @property
    def size(self) -> float:
        """How far they are apart, nats."""
        return abs(self.now - self.expected)


class LocalEngine(Engine):
    """Scores continuations with a transformers model.

    Args:
        model: A causal language model, in evaluation mode.
        max_length: Its context length, tokens.
        share: Whether prefixes are shared. If the model cannot they are not, and the log says so.
        rounding: The hooks that round the model's activations, keys and values; None if it has none.
    """

    def __init__(
        self, model: PreTrainedModel, max_length: int, share: bool = True, rounding: InferenceRounding | None = None
    ) -> None:
        super().__init__(max_length)
        self.model, self.share = model, share
        self.rounding = rounding or InferenceRounding()
        self.width = width_of(model)
        self.is_offloaded = bool(offloaded_parts(model))
        self.budget = Budget(input_device(model), model.config.get_text_config().vocab_size, self.is_offloaded)
        self._checked_length = dict.fromkeys(WAYS, 0)  # way → tokens of the longest input for which it was checked
        self._padded_length = 0  # tokens that an input was padded to without a change of its log-probabilities

    @property
    @override
    def parameters(self) -> int:
        return parameters_of(self.model)

    @override
    def limits(self) -> Limits:
        if not self.budget.probed:
            try:
                self._probe()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.budget.shrink(PROBE_TOKENS)
        return Limits(self.budget.tokens, min(self.budget.tokens, self.budget.with_logits))

    @override
    def broken_layer(self, request: Request) -> str | None:
        return first_broken_module(self.model, input_tokens(request))

    @override
    def run(self, requests: Requests, journal: Journal, known: Mapping[int, Scored]) -> Iterator[dict[int, Scored]]:
        """Score requests, batch by batch, as `Engine.run`.

        Raises:
            UserError: If one input alone does not fit into memory, or if the first batch did not round all that the model has
                to round.
        """
        passes = self._passes(requests)
        brings_once = self.is_offloaded and self._may_bring_once(passes, requests)
        self.rounding.reached.clear()
        for number, batch in enumerate(self._run_batches(requests, passes, journal, known, brings_once)):
            if number == 0:
                self.rounding.check_reached()
            yield batch

    def lay_out(self, requests: Requests, most: int) -> tuple[RunBatch, list[list[TreeRow]]]:
        """Return how requests are run, each batch in one pass, and their batches of at most `most` tokens each."""
        passes, limits = self._passes(requests, ("trees",)), self.limits()
        return passes.run, passes.lay_out(requests, Limits(min(most, limits.shared), min(most, limits.plain)))

    def _probe(self) -> None:
        """Measure a batch of zeros, which is thrown away: so the limits do not depend on what is scored when."""
        length = min(PROBE_LENGTH, self.max_length)
        share = self.share and self._why_not("trees", {0: ([0] * length, [0])}) is None
        run: RunBatch = forward.score_trees if share else forward.score_plain
        most = PROBE_TOKENS if share else min(PROBE_TOKENS, self.budget.with_logits)
        requests: Requests = {i: ([0] * (length - i), [0]) for i in range(max(1, min(most // length, length)))}
        rows = chains(requests)
        run(self.model, rows[:1], requests)  # the first pass is slower
        with self.budget.measure(len(rows) * length):
            run(self.model, rows, requests)

    def _passes(self, requests: Requests, ways: Sequence[str] = tuple(WAYS)) -> Passes:
        """Return how these requests are run: the fastest of some ways that gives the numbers of plain passes on a few."""
        few = few_questions(requests)
        why_not: str | None = "scoring.share=false"
        if self.share:
            checked = {**few, **_longest(requests)}
            for way in ways:
                message = WAYS[way]
                why_not = self._why_not(way, requests) or self._why_other(way, checked)
                if why_not is None:
                    log.info(message)
                    return self._sharing(way)
                log.info("%s: no: %s", message, why_not)
        log.info("prefixes are not shared: %s", why_not)
        with self.rounding.exact():
            alone = padding_changes(self.model)
        if alone:
            log.warning("each input is run by itself: padding, or the inputs beside it, change its log-probabilities")
        return self._one_by_one() if alone or self._padding_changes(requests, few) else self._padded()

    def _why_not(self, way: str, requests: Requests) -> str | None:
        """Return why requests cannot be run in a way, whatever the numbers are; None if they can."""
        with self.rounding.exact():
            match way:
                case "trees":
                    return why_no_trees(self.model, max(map(_length, requests.values())))
                case "copies":
                    return why_no_copies(self.model)
        saved = sum(map(_length, requests.values())) / sum(map(len, trees(requests, self.budget.tokens, self.budget.tokens)))
        if saved < LEAST_SAVED:
            return (
                f"inputs have {saved:.1f} times as many tokens as are left when prefixes are shared, and it takes {LEAST_SAVED}"
            )
        with self.rounding.exact():
            return why_no_copies_by_token(self.model)

    def _why_other(self, way: str, some: Requests) -> str | None:
        """Return why requests cannot be run in a way: it fails, or changes numbers beyond TOLERANCE; None if neither."""
        length = max(map(_length, some.values()))
        if length <= self._checked_length[way]:
            return None
        try:
            change = self._change(some, self._one_by_one(), self._sharing(way))
        except BUILD_ERRORS as error:  # of a family whose code takes short inputs in this way, and not these
            return f"it ends with {in_one_line(error)}"
        if change:
            return (
                f"it gives {change.now:.6f} where a plain pass gives {change.expected:.6f} ({self._tolerance()}), so that this "
                "way is left out"
            )
        self._checked_length[way] = length
        return None

    def _sharing(self, way: str) -> Passes:
        """Return a way to run requests whose prefixes are shared."""
        if way == "trees":
            return Passes(forward.score_trees, lambda some, most: batches(trees(some, self.width, most.shared), most.shared))
        run = state_copies.score_copies if way == "copies" else state_copies.score_copies_by_token
        # A row is read part by part, so that attention is not quadratic in it: rows are as long as they may be.
        return Passes(run, lambda some, most: batches(trees(some, most.shared, most.shared), most.shared))

    def _padded(self) -> Passes:
        def lay_out(some: Requests, most: Limits) -> list[list[TreeRow]]:
            groups = rows_padded_together(self.model, chains(some))
            return [batch for group in groups for batch in batches(group, most.plain)]

        return Passes(forward.score_plain, lay_out)

    def _one_by_one(self) -> Passes:
        return Passes(forward.score_plain, lambda some, most: batches(chains(some), 1))

    def _padding_changes(self, requests: Requests, few: Requests) -> bool:
        """Return whether an input gets another log-probability beyond TOLERANCE when it is padded as it is in a batch."""
        for group in rows_padded_together(self.model, chains(requests)):
            longest = max(map(len, group))
            short = {i: few[i] for row in group if len(row) < longest for i in row.scored if i in few}
            if not short or longest <= self._padded_length:
                continue
            padded = Passes(forward.score_plain, partial(_lay_out_padded, longest))
            if change := self._change(short, self._one_by_one(), padded):
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
        with self.rounding.exact():
            expected, now = self._run_few(few, reference), self._run_few(few, passes)
        absolute, relative = TOLERANCE[self._dtype]
        changes = [Change(expected[i].logprob, now[i].logprob) for i in expected if math.isfinite(expected[i].logprob)]
        return next((change for change in changes if not change.size <= absolute + relative * abs(change.expected)), None)

    def _run_few(self, few: Requests, passes: Passes) -> dict[int, Scored]:
        journal = Journal()
        journal.begin(self.limits())
        return {i: scored for batch in self._run_batches(few, passes, journal, {}) for i, scored in batch.items()}

    @property
    def _dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def _tolerance(self) -> str:
        absolute, relative = TOLERANCE[self._dtype]
        return f"in {self._dtype} they may differ by {absolute} + {relative} of it"

    def _may_bring_once(self, passes: Passes, requests: Requests) -> bool:
        """Return whether batches get the same numbers when each block of an offloaded model is brought once for all of them."""
        few = few_questions(requests)
        batches_of_few = passes.lay_out(few, Limits(1, 1))
        with self.rounding.exact():
            expected = [dict(passes.run(self.model, batch, few)) for batch in batches_of_few]
            try:
                same = [dict(scored) for scored in bring_blocks_once(self.model, passes.run, batches_of_few, few)] == expected
                why = "it changes log-probabilities"
            except BUILD_ERRORS as error:  # of a family whose blocks do not simply follow each other
                same, why = False, in_one_line(error)
        log.info("offloaded blocks are brought once for many batches%s", "" if same else f": no: {why}")
        return same

    def _run_batches(
        self,
        requests: Requests,
        passes: Passes,
        journal: Journal,
        known: Mapping[int, Scored],
        brings_once: bool = False,
    ) -> Iterator[dict[int, Scored]]:
        """Run requests, the longest rows first, in batches within the journal's limits.

        Rows are laid out again, shorter, whenever a batch does not fit into memory. With `brings_once` each block of an
        offloaded model is brought once for many batches, for half as many whenever they do not fit together.
        """
        run = partial(bring_blocks_once, self.model, passes.run) if brings_once else partial(_run_each, self.model, passes.run)
        remaining = dict(requests)
        waiting: deque[list[TreeRow]] = deque()
        running: deque[Mapping[int, Scored]] = deque()  # their scores are not read yet, which would wait for them
        limits, fits_together = None, math.inf
        while remaining:
            done = len(requests) - len(remaining)
            if limits != journal.limits(done):
                limits = journal.limits(done)
                waiting = deque(passes.lay_out(remaining, limits))
            most = most_tokens_at_once(self.model, journal.limits(done).shared) if brings_once else 0
            together = _take(waiting, min(most, fits_together), journal, done)
            new = [batch for batch in together if not _numbers(batch) <= known.keys()]
            if new:
                scored = self._run(run, new, requests)
                if scored is None and len(new) > 1:
                    fits_together = sum(map(_tokens, together)) / 2
                    waiting.extendleft(reversed(together))
                    continue
                if scored is None:
                    fewer = self.budget.shrink(_tokens(new[0]))
                    journal.lower(done, Limits(fewer, fewer))
                    continue
                running.extend(scored)
            for i in (i for batch in together for i in _numbers(batch)):
                del remaining[i]
            while len(running) > (IN_FLIGHT.get(self.budget.device.type, 0) if remaining else 0):
                yield dict(running.popleft())

    def _run(self, run: RunBatches, together: list[list[TreeRow]], requests: Requests) -> list[Mapping[int, Scored]] | None:
        """Run batches. Returns None if memory does not suffice; raises UserError if there cannot be less of them."""
        try:
            scored = run(together, requests)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)
        else:
            self.tokens += sum(map(_tokens, together))
            return scored
        longest = together[0]  # out here the memory of the failed pass is free
        if len(together) == len(longest) == 1 and not longest[0].splits:
            raise UserError(
                f"One input of {_tokens(longest)} tokens does not fit in the memory that is left ({failure}). "
                "Free some, or take a smaller model."
            )
        return None


def _run_each(
    model: PreTrainedModel, run: RunBatch, together: Sequence[list[TreeRow]], requests: Requests
) -> list[Mapping[int, Scored]]:
    return [run(model, batch, requests) for batch in together]


def _take(waiting: deque[list[TreeRow]], most_tokens: float, journal: Journal, done: int) -> list[list[TreeRow]]:
    """Take the batches that are run together: the first, and more of the same limits within a number of tokens.

    Args:
        waiting: The batches in their order; those that are returned are removed.
        most_tokens: Of all batches, padding counted.
        journal: Has the limits.
        done: How many requests were scored before.
    """
    together = [waiting.popleft()]
    while waiting and sum(map(_tokens, [*together, waiting[0]])) <= most_tokens:
        if journal.limits(done + sum(len(_numbers(batch)) for batch in together)) != journal.limits(done):
            break
        together.append(waiting.popleft())
    return together


def _tokens(batch: list[TreeRow]) -> int:
    """Return a batch's tokens, padding counted."""
    return len(batch) * len(batch[0])


def _numbers(batch: list[TreeRow]) -> set[int]:
    """Return the requests of a batch."""
    return {i for row in batch for i in row.scored}


def _length(request: Request) -> int:
    return len(input_tokens(request))


def _longest(requests: Requests) -> Requests:
    """Return the request with the longest input: a sliding window or the like shows in no shorter one."""
    longest = max(requests, key=lambda i: _length(requests[i]))
    return {longest: requests[longest]}


def _lay_out_padded(length: int, some: Requests, most: Limits) -> list[list[TreeRow]]:
    return batches(pad(chains(some), length), most.plain)


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
