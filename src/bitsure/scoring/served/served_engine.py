"""The log-probabilities of continuations from a server: requests at one time, each answer checked, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.results.run_files import ServedOrigin
from bitsure.scoring.engine import Engine
from bitsure.scoring.journal import Journal, Limits
from bitsure.scoring.requests import Request, Requests, Scored
from bitsure.scoring.served.completion import ScoredPrompt
from bitsure.scoring.served.served_model import finite
from bitsure.scoring.served.server import Server

CHECKED_AFTER = 16  # requests; what they answered is kept if the server then still has the same model
WRITTEN = 1  # tokens that a server writes after each prompt; it refuses to write none


class ServedEngine(Engine):
    """Scores continuations with a model of a server.

    A server reads a continuation's last token too and writes one more: the longest input is two tokens shorter than the
    context.

    Args:
        server: The server.
        context: The most tokens of a prompt and what is written after it.
        parameters: The number of the model's parameters, as far as its config says.
    """

    def __init__(self, server: Server, context: int, parameters: int) -> None:
        super().__init__(context - WRITTEN - 1)
        self.server, self._parameters = server, parameters
        self._fits = 0  # tokens of the longest prompt that the server was seen to read

    @property
    @override
    def origin(self) -> ServedOrigin:
        return self.server.origin

    @property
    @override
    def parameters(self) -> int:
        return self._parameters

    @override
    def limits(self) -> Limits:
        return Limits(0, 0)  # the server makes its own batches

    @override
    def broken_layer(self, request: Request) -> str | None:
        return None

    @override
    def run(self, requests: Requests, journal: Journal, known: Mapping[int, Scored]) -> Iterator[dict[int, Scored]]:
        """Score requests, as `Engine.run`; the longest come first, so that one that does not fit is refused early.

        Raises:
            UserError: If the server stops to answer, answers about other tokens, or has become another model meanwhile; what
                was scored of this task is then forgotten.

        Nothing of a server is yielded before the server was seen to have the same model after it: so the journal has answers of
        this model alone, whatever stops the run.
        """
        self.server.model.client.stopped.clear()
        waiting = sorted(requests.keys() - known.keys(), key=lambda i: (-sum(map(len, requests[i])), i))
        if waiting:
            self._check_fits(sum(map(len, requests[waiting[0]])))
        size = self.server.settings.prompts
        starts = range(0, len(waiting), size)
        batches: list[Requests] = [{i: requests[i] for i in waiting[start : start + size]} for start in starts]
        # vLLM in this process has one model as long as it runs. Asked in the main thread, Ctrl-C breaks it off.
        answers = map(self._score, batches) if self.origin.in_process else self._ask_server(batches, journal)
        for scored in answers:
            self.tokens += sum(sum(map(len, requests[i])) for i in scored)
            yield scored

    def _ask_server(self, batches: list[Requests], journal: Journal) -> Iterator[dict[int, Scored]]:
        """Yield what a server says of each batch, several at one time, once it was seen to have the same model."""
        unchecked: list[dict[int, Scored]] = []
        with ThreadPoolExecutor(self.server.settings.concurrency) as pool:
            running: set[Future[dict[int, Scored]]] = set()
            try:
                while batches or running:
                    while batches and len(running) < self.server.settings.concurrency:
                        running.add(pool.submit(self._score, batches.pop(0)))
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    unchecked += [future.result() for future in done]
                    if len(unchecked) >= CHECKED_AFTER or not (batches or running):
                        self._check_same(journal)
                        yield from unchecked
                        unchecked = []
            finally:
                self.server.model.client.stopped.set()
                for future in running:
                    future.cancel()

    def _check_same(self, journal: Journal) -> None:
        """Raise UserError, and remove the journal, if the server has another model than at the beginning."""
        if (change := self.server.serves_another()) is not None:
            journal.remove()
            raise self.server.model.client.refusal(
                f"{self.server.model.name} has become another model while it was asked: fixed tokens' log-probabilities differ "
                f"by {change:.3g} nats on average from those at the beginning. What was scored of this task is forgotten; run "
                "the same command again"
            )

    def _check_fits(self, tokens: int) -> None:
        """Raise UserError if the server does not read as many tokens as its context is said to have."""
        model = self.server.model
        if tokens <= self._fits:
            return
        try:
            model.score([(self.server.test.text * (tokens // len(self.server.test.text) + 1))[:tokens]])
        except UserError as error:
            reason = str(error).removeprefix(f"{model.client.given}: ").rstrip(".")
            raise model.client.refusal(
                f"the server's context is said to have {self.max_length + WRITTEN + 1} tokens, and it does not read "
                f"a prompt of {tokens}: {reason}. {model.client.reads_more}"
            ) from error
        self._fits = tokens

    def _score(self, batch: Requests) -> dict[int, Scored]:
        prompts = [context + continuation for context, continuation in batch.values()]
        answers = self.server.model.score(prompts)
        return {i: self._scored(batch[i], answer) for i, answer in zip(batch, answers, strict=True)}

    def _scored(self, request: Request, answer: ScoredPrompt) -> Scored:
        first = len(request[0])
        logprobs = finite(answer.logprobs[first:])
        if logprobs is None:
            raise self.server.model.client.refusal(
                "the server gives a token of an answer the log-probability "
                f"{next(value for value in answer.logprobs[first:] if finite([value]) is None)}: its model is broken, or it "
                "does not know all tokens"
            )
        return Scored(logprobs, all(answer.greedy[first:]))
