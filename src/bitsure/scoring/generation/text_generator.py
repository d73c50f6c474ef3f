"""Answers to prompts: batches within the memory for keys and values, kept in a journal as they are written."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from bitsure.base.errors import UserError
from bitsure.base.out_of_memory import is_out_of_memory
from bitsure.base.resources import free_memory
from bitsure.models.size import keys_values_of
from bitsure.quantize.inference.hooks import InferenceRounding
from bitsure.scoring.generation.answer_batch import CachedModel, UnfinishedAnswer, why_not_together, write_answers
from bitsure.scoring.generation.generation_request import Generation, GenerationRequest
from bitsure.scoring.generation.prompt_batches import PromptBatch, prompt_batches
from bitsure.scoring.generation.stop_sequences import StopSequences
from bitsure.scoring.generation.token_choice import TokenChoice
from bitsure.scoring.journal import Limits, ResultJournal
from bitsure.scoring.local.diagnose import first_broken_module
from bitsure.scoring.local.logits_from_states import input_device
from bitsure.scoring.local.trial import why_no_trees

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

AnswerJournal: TypeAlias = ResultJournal[Generation]
MOST_ROWS = {"cpu": 64, "cuda": 256}  # of a batch; more is hardly faster
MOST_CACHED = 2**19  # tokens of a batch whose keys and values are kept
MEMORY_SHARE = 0.25  # of what is free, for them: each token is added by copying them
READ_AT_ONCE = {"cpu": 2048, "cuda": 16384}  # tokens of prompts in one pass


class TextGenerator:
    """Writes answers with a transformers model.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer, which decodes answers for the stop sequences.
        share: Whether what prompts have in common at their beginning is read once.
        rounding: The hooks that round the model's activations, keys and values; None if it has none.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        share: bool = True,
        rounding: InferenceRounding | None = None,
    ) -> None:
        self.model, self.tokenizer, self.share = model, tokenizer, share
        self.rounding = rounding or InferenceRounding()
        self.tokens = 0
        """Tokens that were run so far, padding counted."""
        self._beginning: tuple[list[int], CachedModel] | None = None  # the last one that prompts had in common
        self._stops: dict[tuple[str, ...], StopSequences] = {}

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        name: Callable[[int], str] = "answer {}".format,
        advance: Callable[[int], None] = lambda n: None,
        journal: AnswerJournal | None = None,
    ) -> list[Generation]:
        """Write answers; equal requests get the same one.

        Args:
            requests: What is asked.
            name: Returns what to call a request in an error, given its position.
            advance: Called with how many more requests are done.
            journal: Has what was written before and in which batches, and receives what is written now.

        Returns:
            The answers, in the requests' order.

        Raises:
            UserError: If a setting of a request is not known here, one prompt does not fit into memory, a probability is not
                finite, or the model did not round all that it has to round.
        """
        journal = ResultJournal(None, Generation) if journal is None else journal
        positions: dict[str, list[int]] = {}  # of equal requests
        for i, request in enumerate(requests):
            positions.setdefault(str(request.key), []).append(i)
        times = {equal[0]: len(equal) for equal in positions.values()}
        results = {i: known for i in times if (known := journal.get(requests[i].key)) is not None}
        advance(sum(times[i] for i in results))
        if len(results) < len(times):
            journal.begin(self.limits())
            for written in self._run({i: requests[i] for i in times}, results.keys() & times.keys(), journal):
                for i, generation in written.items():
                    self._check_finite(generation, requests[i], name(i))
                journal.append((requests[i].key, generation) for i, generation in written.items())
                advance(sum(times[i] for i in written if i not in results))
                results |= written
        by_position = {i: results[equal[0]] for equal in positions.values() for i in equal}
        return [by_position[i] for i in range(len(requests))]

    def limits(self) -> Limits:
        """Return how many tokens' keys and values fit into memory, a power of two, and how many tokens are read at once."""
        device, each = input_device(self.model), keys_values_of(self.model, in_transformers=True) * self.model.dtype.itemsize
        cached = min(MOST_CACHED, max(1, free_memory(device) * MEMORY_SHARE / max(1, each)))
        return Limits(2 ** int(math.log2(cached)), READ_AT_ONCE.get(device.type, READ_AT_ONCE["cpu"]))

    def _run(
        self, requests: Mapping[int, GenerationRequest], known: set[int], journal: AnswerJournal
    ) -> Iterator[dict[int, Generation]]:
        """Write requests, batch by batch, as `Engine.run` scores them."""
        longest = max(len(request.prompt) + request.max_new_tokens for request in requests.values())
        with self.rounding.exact():
            why_not = why_no_trees(self.model, longest) or why_not_together(self.model)
        if why_not:
            log.info("answers are written one by one, without a common beginning of prompts: %s", why_not)
        rows = 1 if why_not else MOST_ROWS.get(input_device(self.model).type, MOST_ROWS["cpu"])
        remaining, checked = dict(requests), False
        waiting: deque[PromptBatch] = deque()
        laid_out = None
        while remaining:
            done = len(requests) - len(remaining)
            limits = journal.limits(done)
            if laid_out != limits:
                laid_out = limits
                waiting = deque(prompt_batches(remaining, limits, rows, self.share and not why_not))
            batch = waiting.popleft()
            if not known.issuperset(batch.numbers):
                self.rounding.reached.clear()
                written = self._write(batch, requests, limits)
                if written is None:
                    journal.lower(done, Limits(max(1, limits.shared // 2), max(1, limits.plain // 2)))
                    continue
                if not checked:
                    self.rounding.check_reached()
                    checked = True
                yield written
            for i in batch.numbers:
                del remaining[i]
        self._beginning = None

    def _write(
        self, batch: PromptBatch, requests: Mapping[int, GenerationRequest], limits: Limits
    ) -> dict[int, Generation] | None:
        """Write a batch. Returns None if memory does not suffice; raises UserError if no smaller batch can be made."""
        answers = [self._unfinished(requests[i]) for i in batch.numbers]
        try:
            state = self._state_after(requests[batch.numbers[0]].prompt[: batch.shared], limits.plain).repeated(len(answers))
            write_answers(state, batch.shared, answers)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)
        else:
            self.tokens += state.tokens
            return {i: answer.finished() for i, answer in zip(batch.numbers, answers, strict=True)}
        if len(answers) == 1 and limits.plain == 1:
            raise UserError(
                f"A prompt of {len(answers[0].request.prompt)} tokens and its answer do not fit in the memory that is left "
                f"({failure}). Free some, or take a smaller model."
            )
        log.warning("out of memory with a batch of %d answers: continuing with smaller ones", len(answers))
        return None

    def _state_after(self, beginning: list[int], at_once: int) -> CachedModel:
        """Return the model after the beginning that prompts have in common."""
        if not beginning:
            return CachedModel(self.model, at_once)
        if self._beginning is None or self._beginning[0] != beginning:
            state = CachedModel(self.model, at_once)
            with torch.inference_mode():
                state.read([beginning])
            self.tokens += state.tokens
            self._beginning = beginning, state
        return self._beginning[1]

    def _unfinished(self, request: GenerationRequest) -> UnfinishedAnswer:
        stop = tuple(request.stop)
        if stop not in self._stops:
            self._stops[stop] = StopSequences(self.tokenizer, stop)
        return UnfinishedAnswer(request, TokenChoice(self.model, request), self._stops[stop])

    def _check_finite(self, generation: Generation, request: GenerationRequest, name: str) -> None:
        if all(map(math.isfinite, generation.token_logprobs)):
            return
        layer = first_broken_module(self.model, request.prompt)
        where = f"the first layer with such a value is {layer}" if layer else "every layer's output is finite"
        raise UserError(f"{name}: the probability of a token is not finite: the model is broken ({where}).")
