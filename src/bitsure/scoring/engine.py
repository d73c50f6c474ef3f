"""The log-probability of every token of every continuation, each distinct prefix run once. Torch, no harness.

Requests become rows (`rows.py`), rows become batches within a budget (`budget.py`), batches go through the model
(`forward.py`).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from bitsure.errors import UserError
from bitsure.scoring import forward
from bitsure.scoring.budget import Budget, is_out_of_memory
from bitsure.scoring.diagnose import first_broken_module
from bitsure.scoring.forward import Scored
from bitsure.scoring.journal import Journal
from bitsure.scoring.rows import Request, Row, chains, read_by_the_model, trees

log = logging.getLogger(__name__)

# How far the two paths may be apart: nats, and nats per nat of the continuation's log-probability.
TOLERANCE = {"float32": (1e-4, 1e-6), "bfloat16": (0.3, 1e-2), "float16": (0.05, 2e-3)}
CHECKED = 2  # questions that every run scores both ways
CHECKED_TOKENS = 384  # at most that many in their plain inputs


class Engine:
    """Scores continuations with one model.

    share: whether prefixes may be shared. Where the model's family does not allow it they are not, and the log says so.
    """

    def __init__(self, model: torch.nn.Module, max_length: int, share: bool = True):
        self.model, self.max_length, self.share = model, max_length, share
        self.budget = Budget(model.device, model.config.vocab_size)
        self._checked = False

    def score(
        self,
        requests: Sequence[Request],
        name: Callable[[int], str] = "request {}".format,
        advance: Callable[[int], None] = lambda n: None,
        journal: Journal | None = None,
    ) -> list[Scored]:
        """Score continuations given contexts, both as token ids.

        name: what to call a request in an error. advance: told how many more are done. journal: has what was scored
        before, and takes what is scored now. A context too long for the model loses its beginning, as in the harness. Raises
        UserError for a continuation that is empty or longer than the model's context, for a log-probability that is not
        finite, and if sharing prefixes changes a number.
        """
        asked = self._truncated(requests, name)
        results = [None if journal is None else journal.get(request) for request in asked]
        todo = {i: asked[i] for i, found in enumerate(results) if found is None}
        advance(len(asked) - len(todo))
        numbers, left = list(todo), list(todo.values())
        if left:
            run, rows = self._path(left)
            for scored in self._batches(run, rows, left):
                for k, one in scored.items():
                    self._check_finite(one, left[k], name(numbers[k]))
                    results[numbers[k]] = one
                if journal is not None:
                    journal.append((left[k], one) for k, one in scored.items())
                advance(len(scored))
        return results

    def _truncated(self, requests: Sequence[Request], name: Callable[[int], str]) -> list[Request]:
        asked, truncated = [], []
        for i, (context, continuation) in enumerate(requests):
            if not continuation or not context:
                raise UserError(f"{name(i)}: the choice, or what stands before it, has no tokens: there is nothing to score.")
            if len(continuation) > self.max_length:
                raise UserError(
                    f"{name(i)}: the choice alone has {len(continuation)} tokens, the model's context {self.max_length}. "
                    "Leave the task out, or take a model with a longer context."
                )
            too_long = max(0, len(context) + len(continuation) - self.max_length - 1)
            if too_long:
                truncated.append(i)
            asked.append((context[too_long:], continuation))
        if truncated:
            log.warning(
                "%d of %d inputs, the first of them %s, were longer than %d tokens and lost their beginning",
                len(truncated),
                len(requests),
                name(truncated[0]),
                self.max_length,
            )
        return asked

    def _path(self, requests: Sequence[Request]) -> tuple[Callable, list[Row]]:
        """How to run these requests, and their rows."""
        longest = max(len(read_by_the_model(request)) for request in requests)
        why_not = forward.why_not_shared(self.model, longest) if self.share else "as asked for"
        if why_not:
            log.info("prefixes are not shared: %s", why_not)
            return forward.plain, chains(requests)
        if not self._checked:
            self._check_sharing(requests)
            self._checked = True
        rows = trees(requests, self.model.config.hidden_size)
        whole, laid = sum(len(read_by_the_model(request)) for request in requests), sum(map(len, rows))
        log.info("prefixes are shared: %d tokens instead of %d", laid, whole)
        return forward.shared, rows

    def _check_sharing(self, requests: Sequence[Request]) -> None:
        """Raise UserError if a few questions get other numbers when their prefixes are shared."""
        few = _few_questions(requests)
        shared = forward.shared(self.model, trees(few, self.model.config.hidden_size), few)
        plain = forward.plain(self.model, chains(few), few)
        dtype = str(self.model.dtype).removeprefix("torch.")
        absolute, relative = TOLERANCE[dtype]
        for i, expected in plain.items():
            apart = abs(shared[i].logprob - expected.logprob)
            if not apart <= absolute + relative * abs(expected.logprob) and math.isfinite(expected.logprob):
                raise UserError(
                    f"Scoring with shared prefixes gives {shared[i].logprob:.6f} where a plain pass gives "
                    f"{expected.logprob:.6f} (in {dtype} they may differ by {absolute} + {relative} of it): this model "
                    "cannot be scored that way. "
                    "scoring.share=false scores it plainly."
                )

    def _batches(self, run: Callable, rows: list[Row], requests: Sequence[Request]) -> Iterator[dict[int, Scored]]:
        """Run rows, longest first, in batches within the budget; yields `Scored` by request.

        What does not fit into memory is tried in halves.
        """
        waiting = deque(sorted(rows, key=len, reverse=True))
        while waiting:
            batch = self._next_batch(waiting)
            tokens, scored = len(batch) * len(batch[0]), sum(row.n_scored for row in batch)
            try:
                with self.budget.measure(tokens):
                    done = run(self.model, batch, requests)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1 and len(batch[0].scored) == 1:
                    raise UserError(
                        f"One input of {tokens} tokens does not fit in the memory that is left ({error}). "
                        "Free some, or take a smaller model."
                    ) from None
                self.budget.shrink(tokens, scored)
                waiting.extendleft(reversed(_halves(batch, requests)))
                continue
            yield done

    def _next_batch(self, waiting: deque[Row]) -> list[Row]:
        batch = [waiting.popleft()]
        scored = batch[0].n_scored
        while waiting and (len(batch) + 1) * len(batch[0]) <= self.budget.tokens and len(waiting[0]) <= len(batch[0]):
            scored += waiting[0].n_scored
            if scored > self.budget.scored:
                break
            batch.append(waiting.popleft())
        return batch

    def _check_finite(self, one: Scored, request: Request, name: str) -> None:
        bad = [p for p in one.token_logprobs if not math.isfinite(p)]
        if bad:
            layer = first_broken_module(self.model, read_by_the_model(request))
            where = f"the first layer with such a value is {layer}" if layer else "every layer's output is finite"
            raise UserError(f"{name}: a log-probability is {bad[0]}: the model is broken ({where}).")


def _few_questions(requests: Sequence[Request]) -> list[Request]:
    """CHECKED questions with all their choices, the shortest first, within CHECKED_TOKENS (but at least one request)."""
    questions: dict[tuple[int, ...], list[Request]] = {}
    for request in requests:
        questions.setdefault(tuple(request[0]), []).append(request)
    few: list[Request] = []
    tokens = 0
    for question in sorted(questions.values(), key=lambda q: sum(len(read_by_the_model(r)) for r in q))[:CHECKED]:
        for request in question:
            tokens += len(read_by_the_model(request))
            if few and tokens > CHECKED_TOKENS:
                return few
            few.append(request)
    return few


def _halves(batch: list[Row], requests: Sequence[Request]) -> list[Row]:
    """The rows of a batch; the only one, in two."""
    if len(batch) > 1:
        return batch
    numbers = list(batch[0].scored)
    halves = []
    for part in (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
        for row in chains([requests[i] for i in part]):
            row.scored = {part[k]: nodes for k, nodes in row.scored.items()}
            halves.append(row)
    return halves
