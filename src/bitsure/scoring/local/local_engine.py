"""The log-probability of every token of every continuation, each distinct prefix run once.

Requests become rows (`rows.py`), rows become batches within a budget (`budget.py`), batches go through the model
(`forward.py`).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.base.work import parameters_of, width_of
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.scoring.engine import Engine
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.local import forward
from bitsure.scoring.local.budget import PROBE_TOKENS, Budget, is_out_of_memory
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.rows import TreeRow, batches, chains, trees
from bitsure.scoring.requests import Request, Requests, Scored, input_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# How far log-probabilities with and without shared prefixes may be apart: nats, and nats per nat of the log-probability.
TOLERANCE = {"float32": (1e-4, 1e-6), "bfloat16": (0.3, 1e-2), "float16": (0.05, 2e-3)}
CHECKED_CHOICES = (2, 1)  # of the first and of the second question that every run scores with and without sharing, at least
CHECKED_TOKENS = 384  # of the inputs of all checked choices, where the least number of them is shorter
PROBE_LENGTH = 128  # tokens of an input of the batch that is measured

RunBatch: TypeAlias = "Callable[[PreTrainedModel, Sequence[TreeRow], Requests], dict[int, Scored]]"


class LocalEngine(Engine):
    """Scores continuations with a transformers model.

    Args:
        model: A causal language model, in evaluation mode.
        max_length: Its context length, tokens.
        share: Whether prefixes are shared. If the model's family does not support it they are not, and the log says so.
        rounding: The hooks that round the model's activations, keys and values; None if it has none.
    """

    def __init__(
        self, model: PreTrainedModel, max_length: int, share: bool = True, rounding: InferenceRounding | None = None
    ) -> None:
        super().__init__(max_length)
        self.model, self.share = model, share
        self.rounding = rounding or InferenceRounding()
        self.width = width_of(model)
        self.budget = Budget(forward.input_device(model), model.config.get_text_config().vocab_size)
        self._checked_length = 0  # tokens of the longest input for which sharing was checked

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
            UserError: If sharing prefixes changes a number, if one input alone does not fit into memory, or if the first batch
                did not round all that the model has to round.
        """
        share = self._may_share(requests)
        self.rounding.reached.clear()
        for number, batch in enumerate(self._run_batches(requests, share, journal, known)):
            if number == 0:
                self.rounding.check_reached()
            yield batch

    def _probe(self) -> None:
        """Measure a batch of zeros, which is thrown away: so the limits do not depend on what is scored when."""
        length = min(PROBE_LENGTH, self.max_length)
        share = self.share and not forward.why_not_shared(self.model, length)
        run, most = (
            (forward.score_trees, PROBE_TOKENS) if share else (forward.score_plain, min(PROBE_TOKENS, self.budget.with_logits))
        )
        requests: Requests = {i: ([0] * (length - i), [0]) for i in range(max(1, min(most // length, length)))}
        rows = chains(requests)
        run(self.model, rows[:1], requests)  # the first pass is slower
        with self.budget.measure(len(rows) * length):
            run(self.model, rows, requests)

    def _may_share(self, requests: Requests) -> bool:
        """Return whether these requests are run as trees. Raises UserError if that changes a number."""
        longest = max(len(input_tokens(request)) for request in requests.values())
        why_not = forward.why_not_shared(self.model, longest) if self.share else "scoring.share=false"
        if why_not:
            log.info("prefixes are not shared: %s", why_not)
            return False
        log.info("prefixes are shared")
        few = few_questions(requests)
        length = max(len(input_tokens(request)) for request in few.values())
        if length > 2 * self._checked_length:
            self.check_sharing(few)
            self._checked_length = length
        return True

    def check_sharing(self, few: Requests) -> None:
        """Raise UserError if requests get other log-probabilities when their prefixes are shared, beyond TOLERANCE.

        Activations, keys and values are not rounded meanwhile: a difference of 1e-7 can move a value across the border between
        two codes, which then differ by a whole step.
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
        return {i: scored for batch in self._run_batches(few, share, journal, {}) for i, scored in batch.items()}

    def _run_batches(
        self, requests: Requests, share: bool, journal: Journal, known: Mapping[int, Scored]
    ) -> Iterator[dict[int, Scored]]:
        """Run requests, the longest rows first, in batches within the journal's limits.

        Rows are laid out again, shorter, whenever a batch does not fit into memory.
        """
        remaining = dict(requests)
        run: RunBatch = forward.score_trees if share else forward.score_plain
        waiting: deque[list[TreeRow]] = deque()
        limits = None
        while remaining:
            done = len(requests) - len(remaining)
            if limits != journal.limits(done):
                limits = journal.limits(done)
                most = limits.shared if share else limits.plain
                waiting = deque(batches(trees(remaining, self.width, most) if share else chains(remaining), most))
            batch = waiting.popleft()
            numbers = {i for row in batch for i in row.scored}
            if not numbers <= known.keys():
                scored = self._run_batch(run, batch, requests)
                if scored is None:
                    fewer = self.budget.shrink(len(batch) * len(batch[0]))
                    journal.lower(done, Limits(fewer, fewer))
                    continue
                yield scored
            for i in numbers:
                del remaining[i]

    def _run_batch(self, run: RunBatch, batch: list[TreeRow], requests: Requests) -> dict[int, Scored] | None:
        """Run a batch. Returns None if memory does not suffice; raises UserError if a smaller batch cannot be made."""
        tokens = len(batch) * len(batch[0])
        try:
            scored = run(self.model, batch, requests)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)
        else:
            self.tokens += tokens
            return scored
        if len(batch) == 1 and not batch[0].splits:  # out here the memory of the failed pass is free
            raise UserError(
                f"One input of {tokens} tokens does not fit in the memory that is left ({failure}). "
                "Free some, or take a smaller model."
            )
        return None


def few_questions(requests: Requests) -> Requests:
    """Return the requests with which sharing is checked.

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
