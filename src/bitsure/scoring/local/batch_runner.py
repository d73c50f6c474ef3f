"""Running batches of rows through a model, fewer or shorter ones where they do not fit into memory."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.models.load import BUILD_ERRORS
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local.budget import Budget
from bitsure.scoring.local.offloaded_batches import RunBatches, bring_blocks_once, most_tokens_at_once
from bitsure.scoring.local.passes import Passes
from bitsure.scoring.local.rows import TreeRow
from bitsure.scoring.local.trial import RunBatch
from bitsure.scoring.requests import Requests, Scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

IN_FLIGHT = {"cuda": 1}  # batches that a device runs while the next one is prepared; a killed process loses them too


class BatchRunner:
    """Runs requests in batches.

    Args:
        model: A causal language model, in evaluation mode.
        budget: How large a batch may be; lowered when one does not fit into memory.
    """

    def __init__(self, model: PreTrainedModel, budget: Budget) -> None:
        self.model, self.budget = model, budget
        self.tokens = 0
        """Tokens that were run so far, padding counted."""

    def run(
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
                scored = self._run_together(run, new, requests)
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

    def _run_together(
        self, run: RunBatches, together: list[list[TreeRow]], requests: Requests
    ) -> list[Mapping[int, Scored]] | None:
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

    def may_bring_once(self, passes: Passes, few: Requests) -> bool:
        """Return whether batches get the same numbers when each block of an offloaded model is brought once for all of them.

        Args:
            passes: How requests are run.
            few: Those with which this is tried.
        """
        batches_of_few = passes.lay_out(few, Limits(1, 1))
        expected = [dict(passes.run(self.model, batch, few)) for batch in batches_of_few]
        try:
            same = [dict(scored) for scored in bring_blocks_once(self.model, passes.run, batches_of_few, few)] == expected
            why = "it changes log-probabilities"
        except BUILD_ERRORS as error:  # of a family whose blocks do not simply follow each other
            same, why = False, in_one_line(error)
        log.info("offloaded blocks are brought once for many batches%s", "" if same else f": no: {why}")
        return same


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
