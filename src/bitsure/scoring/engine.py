"""The log-probability of every token of every continuation, each distinct prefix run once. Torch, no harness.

Requests become rows (`rows.py`), rows become batches within a budget (`budget.py`), batches go through the model
(`forward.py`).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch

from bitsure.errors import UserError
from bitsure.scoring import forward
from bitsure.scoring.budget import Budget, is_out_of_memory
from bitsure.scoring.diagnose import first_broken_module
from bitsure.scoring.forward import Scored
from bitsure.scoring.journal import Journal
from bitsure.scoring.rows import Request, Row, batches, chains, read_by_the_model, trees

log = logging.getLogger(__name__)

Requests = dict[int, Request]  # by number

# How far the two paths may be apart: nats, and nats per nat of the continuation's log-probability.
TOLERANCE = {"float32": (1e-4, 1e-6), "bfloat16": (0.3, 1e-2), "float16": (0.05, 2e-3)}
CHECKED = (2, 1)  # choices, at the least, of the questions that every run scores both ways
CHECKED_TOKENS = 384  # of their plain inputs


class Engine:
    """Scores continuations with one model.

    share: whether prefixes may be shared. Where the model's family does not allow it they are not, and the log says so.
    """

    def __init__(self, model: torch.nn.Module, max_length: int, share: bool = True):
        self.model, self.max_length, self.share = model, max_length, share
        config = model.config.get_text_config()
        self.width = config.hidden_size
        self.budget = Budget(forward.input_device(model), config.vocab_size)
        self._checked_length = 0  # tokens of the longest input for which sharing was checked

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
        left = {i: asked[i] for i, found in enumerate(results) if found is None}
        advance(len(asked) - len(left))
        if not left:
            return results
        for scored in self._run(left, share=self._may_share(left)):
            for i, one in scored.items():
                self._check_finite(one, asked[i], name(i))
                results[i] = one
            if journal is not None:
                journal.append((asked[i], one) for i, one in scored.items())
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

    def _may_share(self, requests: Requests) -> bool:
        """Whether these requests are run as trees; raises UserError if that gives other numbers."""
        longest = max(len(read_by_the_model(request)) for request in requests.values())
        why_not = forward.why_not_shared(self.model, longest) if self.share else "as asked for"
        if why_not:
            log.info("prefixes are not shared: %s", why_not)
            return False
        log.info("prefixes are shared")
        few = _few_questions(requests)
        length = max(len(read_by_the_model(request)) for request in few.values())
        if length > 2 * self._checked_length:
            self._check_sharing(few)
            self._checked_length = length
        return True

    def _check_sharing(self, few: Requests) -> None:
        """Raise UserError if a few questions get other numbers when their prefixes are shared.

        Without the rounding of activations, keys and values: a difference of 1e-7 that moves a value over the edge between two
        codes would be one of a whole step.
        """
        with self.model.hooks.exact() if hasattr(self.model, "hooks") else nullcontext():
            shared, plain = ({i: one for batch in self._run(few, share) for i, one in batch.items()} for share in (True, False))
        dtype = str(self.model.dtype).removeprefix("torch.")
        absolute, relative = TOLERANCE[dtype]
        for i, expected in plain.items():
            apart = abs(shared[i].logprob - expected.logprob)
            if math.isfinite(expected.logprob) and not apart <= absolute + relative * abs(expected.logprob):
                raise UserError(
                    f"Scoring with shared prefixes gives {shared[i].logprob:.6f} where a plain pass gives "
                    f"{expected.logprob:.6f} (in {dtype} they may differ by {absolute} + {relative} of it): this model "
                    "cannot be scored that way. scoring.share=false scores it plainly."
                )

    def _run(self, requests: Requests, share: bool) -> Iterator[dict[int, Scored]]:
        """Run requests, the longest rows first, in batches within the budget; yields what is scored, by number.

        They are laid out again, in longer or shorter rows and batches, whenever the budget changes.
        """
        left, run = dict(requests), forward.shared if share else forward.plain
        waiting: deque[list[Row]] = deque()
        while left:
            budget = self.budget.tokens
            if not waiting and share:
                waiting.extend(batches(trees(left, self.width, budget), budget))
            elif not waiting:
                waiting.extend(batches(chains(left), min(budget, self.budget.with_logits)))
            batch = waiting.popleft()
            tokens = len(batch) * len(batch[0])
            done, failure = None, ""
            try:
                with self.budget.measure(tokens):
                    done = run(self.model, batch, requests)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error)
            if done is None:  # out here the failed pass's memory is free
                if len(batch) == 1 and not batch[0].splits:
                    raise UserError(
                        f"One input of {tokens} tokens does not fit in the memory that is left ({failure}). "
                        "Free some, or take a smaller model."
                    )
                self.budget.shrink(tokens)
            else:
                for i in done:
                    del left[i]
                yield done
            if self.budget.tokens != budget:
                waiting.clear()

    def _check_finite(self, one: Scored, request: Request, name: str) -> None:
        bad = [p for p in one.token_logprobs if not math.isfinite(p)]
        if bad:
            layer = first_broken_module(self.model, read_by_the_model(request))
            where = f"the first layer with such a value is {layer}" if layer else "every layer's output is finite"
            raise UserError(f"{name}: a log-probability is {bad[0]}: the model is broken ({where}).")


def _few_questions(requests: Requests) -> Requests:
    """The shortest questions, at least CHECKED choices of each, and more of them within CHECKED_TOKENS."""
    questions: dict[tuple[int, ...], list[int]] = {}
    for i, request in requests.items():
        questions.setdefault(tuple(request[0]), []).append(i)
    few, tokens = {}, 0
    shortest = sorted(questions.values(), key=lambda question: len(read_by_the_model(requests[question[0]])))
    for question, least in zip(shortest, CHECKED, strict=False):
        for place, i in enumerate(question):
            tokens += len(read_by_the_model(requests[i]))
            if place < least or tokens <= CHECKED_TOKENS:
                few[i] = requests[i]
    return few
