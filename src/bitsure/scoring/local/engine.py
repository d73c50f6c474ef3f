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

from bitsure.base.errors import UserError
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local import forward
from bitsure.scoring.local.budget import PROBE, Budget, is_out_of_memory
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.forward import Scored
from bitsure.scoring.local.rows import Request, Row, batches, chains, read_by_the_model, trees

log = logging.getLogger(__name__)

Requests = dict[int, Request]  # by number

# How far the two paths may be apart: nats, and nats per nat of the continuation's log-probability.
TOLERANCE = {"float32": (1e-4, 1e-6), "bfloat16": (0.3, 1e-2), "float16": (0.05, 2e-3)}
CHECKED = (2, 1)  # choices, at the least, of the questions that every run scores both ways
CHECKED_TOKENS = 384  # of their plain inputs
PROBE_LENGTH = 128  # tokens of an input of the batch that is measured


class Engine:
    """Scores continuations with one model.

    share: whether prefixes may be shared. Where the model's family does not allow it they are not, and the log says so.
    rounding: the hooks that round the model's activations, keys and values; None: it has none.
    """

    def __init__(
        self, model: torch.nn.Module, max_length: int, share: bool = True, rounding: InferenceRounding | None = None
    ) -> None:
        self.model, self.max_length, self.share = model, max_length, share
        self.rounding = rounding or InferenceRounding()
        config = model.config.get_text_config()
        self.width = config.hidden_size
        self.budget = Budget(forward.input_device(model), config.vocab_size)
        self.tokens = 0  # that were run, padding counted
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
        before and in which batches, and takes what is scored now. A context too long for the model loses its beginning, as in
        the harness. Raises UserError for a continuation that is empty or longer than the model's context, for a log-probability
        that is not finite, and if sharing prefixes changes a number.
        """
        asked, journal = self._truncated(requests, name), Journal() if journal is None else journal
        same: dict[tuple, list[int]] = {}  # numbers of equal requests
        for i, (context, continuation) in enumerate(asked):
            same.setdefault((tuple(context), tuple(continuation)), []).append(i)
        times = {numbers[0]: len(numbers) for numbers in same.values()}
        known = {i: one for i in times if (one := journal.get(asked[i])) is not None}
        advance(sum(times[i] for i in known))
        scored = dict(known)
        if len(known) < len(times):
            journal.begin(self.limits())
            different = {i: asked[i] for i in times}
            for batch in self._proved(self._run(different, self._may_share(different), journal, known)):
                for i, one in batch.items():
                    self._check_finite(one, asked[i], name(i))
                journal.append((asked[i], one) for i, one in batch.items())
                scored |= batch
                advance(sum(times[i] for i in batch if i not in known))
        found = {i: scored[numbers[0]] for numbers in same.values() for i in numbers}
        return [found[i] for i in range(len(asked))]

    def limits(self) -> Limits:
        """What a batch may have, found by batches that are thrown away: so it does not depend on what is scored when."""
        if not self.budget.probed:
            try:
                self._probe()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.budget.shrink(PROBE)
        return Limits(self.budget.tokens, min(self.budget.tokens, self.budget.with_logits))

    def _probe(self) -> None:
        length = min(PROBE_LENGTH, self.max_length)
        share = self.share and not forward.why_not_shared(self.model, length)
        run, most = (forward.shared, PROBE) if share else (forward.plain, min(PROBE, self.budget.with_logits))
        requests = {i: ([0] * (length - i), [0]) for i in range(max(1, min(most // length, length)))}
        rows = chains(requests)
        run(self.model, rows[:1], requests)  # the first pass is slower
        with self.budget.measure(len(rows) * length):
            run(self.model, rows, requests)

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
        with self.rounding.exact():
            shared, plain = self._run_few(few, share=True), self._run_few(few, share=False)
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

    def _run_few(self, few: Requests, share: bool) -> dict[int, Scored]:
        journal = Journal()
        journal.begin(self.limits())
        return {i: one for batch in self._run(few, share, journal, {}) for i, one in batch.items()}

    def _run(self, requests: Requests, share: bool, journal: Journal, known: dict[int, Scored]) -> Iterator[dict[int, Scored]]:
        """Run requests, the longest rows first, in batches within the journal's limits; yields what is scored, by number.

        Rows are laid out again, shorter, whenever a batch does not fit. A batch of which all is known was run before the
        process was broken off: it is passed over, and those after it are made as they would have been.
        """
        left, run = dict(requests), forward.shared if share else forward.plain
        waiting: deque[list[Row]] = deque()
        before = None
        while left:
            done = len(requests) - len(left)
            limits = journal.limits(done)
            if limits != before:
                before, most = limits, limits.shared if share else limits.plain
                waiting = deque(batches(trees(left, self.width, most) if share else chains(left), most))
            batch = waiting.popleft()
            numbers = {i for row in batch for i in row.scored}
            if not numbers <= known.keys():
                scored = self._try(run, batch, requests)
                if scored is None:
                    fewer = self.budget.shrink(len(batch) * len(batch[0]))
                    journal.lower(done, Limits(fewer, fewer))
                    continue
                yield scored
            for i in numbers:
                del left[i]

    def _try(self, run: Callable, batch: list[Row], requests: Requests) -> dict[int, Scored] | None:
        """Run a batch; None if memory does not suffice. Raises UserError if a smaller one cannot be made."""
        tokens = len(batch) * len(batch[0])
        try:
            scored = run(self.model, batch, requests)
            self.tokens += tokens
            return scored
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)
        if len(batch) == 1 and not batch[0].splits:  # out here the failed pass's memory is free
            raise UserError(
                f"One input of {tokens} tokens does not fit in the memory that is left ({failure}). "
                "Free some, or take a smaller model."
            )
        return None

    def _proved(self, batches: Iterator[dict[int, Scored]]) -> Iterator[dict[int, Scored]]:
        """The same batches; raises UserError naming what the first did not round of activations, keys and values."""
        self.rounding.reached.clear()
        for number, batch in enumerate(batches):
            if number == 0:
                self.rounding.check_reached()
            yield batch

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
