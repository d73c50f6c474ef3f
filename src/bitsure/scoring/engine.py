"""The interface of a scoring engine, and what is the same for all of them."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from bitsure.base.errors import UserError
from bitsure.results.run_files import ServedOrigin
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.requests import Request, Requests, Scored

log = logging.getLogger(__name__)


class Engine(ABC):
    """Scores continuations, given as token ids, with one model.

    An engine runs requests in batches. Truncation, equal requests, the journal and the check that every number is finite are
    the same for all engines and stand here.

    Args:
        max_length: The model's context length, tokens.
    """

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.tokens = 0
        """Tokens that were run so far, padding counted."""

    @property
    def origin(self) -> ServedOrigin | None:
        """The program that runs the model and what a test of its answers measured; None where it is run here."""
        return None

    @property
    @abstractmethod
    def parameters(self) -> int:
        """The number of the model's parameters, which later estimates of time are made from."""

    @abstractmethod
    def limits(self) -> Limits:
        """Return how large a batch may be on this machine, whatever is scored."""

    @abstractmethod
    def run(self, requests: Requests, journal: Journal, known: Mapping[int, Scored]) -> Iterator[dict[int, Scored]]:
        """Score requests, batch by batch.

        Args:
            requests: Different requests that fit into the model's context, by number.
            journal: The limits of each batch; the engine lowers them where a batch does not fit into memory.
            known: What an interrupted process has scored. A batch of which everything is known was run then and is skipped.
                All other batches have to be those that the interrupted process would have run.

        Yields:
            What a batch scored, by number.
        """

    @abstractmethod
    def broken_layer(self, request: Request) -> str | None:
        """Return the first layer whose output is not finite for a request; None if all are, or that cannot be known."""

    def score(
        self,
        requests: Sequence[Request],
        name: Callable[[int], str] = "request {}".format,
        advance: Callable[[int], None] = lambda n: None,
        journal: Journal | None = None,
    ) -> list[Scored]:
        """Score continuations given their contexts.

        A context that is too long for the model loses its beginning, as in the harness, and a warning counts such contexts.

        Args:
            requests: Contexts and continuations, token ids.
            name: Returns what to call a request in an error, given its position.
            advance: Called with how many more requests are done.
            journal: Has what was scored before and in which batches, and receives what is scored now.

        Returns:
            The log-probabilities for each request, in their order.

        Raises:
            UserError: If a context or continuation is empty, a continuation is longer than the model's context, or a
                log-probability is not finite.
        """
        truncated, journal = self._truncate(requests, name), Journal() if journal is None else journal
        positions: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}  # of equal requests
        for i, (context, continuation) in enumerate(truncated):
            positions.setdefault((tuple(context), tuple(continuation)), []).append(i)
        times = {equal[0]: len(equal) for equal in positions.values()}
        known = {i: scored for i in times if (scored := journal.get(truncated[i])) is not None}
        advance(sum(times[i] for i in known))
        results = dict(known)
        if len(known) < len(times):
            journal.begin(self.limits())
            for batch in self.run({i: truncated[i] for i in times}, journal, known):
                for i, scored in batch.items():
                    self._check_finite(scored, truncated[i], name(i))
                journal.append((truncated[i], scored) for i, scored in batch.items())
                results |= batch
                advance(sum(times[i] for i in batch if i not in known))
        by_position = {i: results[equal[0]] for equal in positions.values() for i in equal}
        return [by_position[i] for i in range(len(requests))]

    def _truncate(self, requests: Sequence[Request], name: Callable[[int], str]) -> list[Request]:
        """Return the requests with contexts cut so that they fit into the model's context."""
        fitting, cut = [], []
        for i, (context, continuation) in enumerate(requests):
            if not continuation or not context:
                raise UserError(f"{name(i)}: the choice, or what stands before it, has no tokens: there is nothing to score.")
            if len(continuation) > self.max_length:
                raise UserError(
                    f"{name(i)}: the choice alone has {len(continuation)} tokens, the model's context {self.max_length}. "
                    "Leave the task out, or take a model with a longer context."
                )
            surplus = max(0, len(context) + len(continuation) - self.max_length - 1)
            if surplus:
                cut.append(i)
            fitting.append((context[surplus:], continuation))
        if cut:
            log.warning(
                "%d of %d inputs, the first of them %s, were longer than %d tokens and lost their beginning",
                len(cut),
                len(requests),
                name(cut[0]),
                self.max_length,
            )
        return fitting

    def _check_finite(self, scored: Scored, request: Request, name: str) -> None:
        bad = [logprob for logprob in scored.token_logprobs if not math.isfinite(logprob)]
        if bad:
            layer = self.broken_layer(request)
            where = f"the first layer with such a value is {layer}" if layer else "every layer's output is finite"
            raise UserError(f"{name}: a log-probability is {bad[0]}: the model is broken ({where}).")
