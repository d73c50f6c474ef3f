"""A server of OpenAI's completions protocol on the loopback, which runs a small model and misbehaves on request."""

from __future__ import annotations

import functools
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from tests.builders.stopped_runs import MOST
from tests.builders.tokenizers import byte_tokenizer

VOCABULARY = 300  # tokens that the model without weights gives probabilities to
Logprobs = Callable[[Sequence[int]], np.ndarray]
"""Token ids → log-probabilities of the next token after each of them, shape (n, vocabulary)."""


def hashed_logprobs(ids: Sequence[int]) -> np.ndarray:
    """Log-probabilities that depend on the last two tokens and on nothing else."""
    return np.array([_logprobs_after(*pair) for pair in zip([0, *ids[:-1]], ids, strict=True)])


@functools.cache
def _logprobs_after(*tokens: int) -> np.ndarray:
    logits = np.random.default_rng(tokens).normal(0, 2, VOCABULARY)
    return logits - np.log(np.exp(logits).sum())


def logprobs_of(model) -> Logprobs:
    """Those of a transformers model."""
    import torch

    def compute(ids: Sequence[int]) -> np.ndarray:
        with torch.inference_mode():
            return torch.log_softmax(model(torch.tensor([list(ids)])).logits[0].double(), -1).numpy()

    return compute


@dataclass
class ServedCompletions:
    """What is served, how it misbehaves, and what was asked for."""

    logprobs: Logprobs = hashed_logprobs
    tokenizer: object = field(default_factory=functools.cache(byte_tokenizer))
    names: tuple[str, ...] = ("org/tiny",)
    answers_as: str | None = None  # the name of the model that answers; None: the one that was asked
    url: str = ""
    speaks: tuple[str, ...] = ("prompt_logprobs", "echo")
    context: int | None = 1024
    lists_models: bool = True
    stated: dict = field(default_factory=dict)  # what else its list says of a model
    # what it does wrong
    shift: int = 0  # places that a prompt's log-probabilities stand too far to the left
    top_k: int | None = None  # only the most likely tokens have log-probabilities
    floor: float | None = None
    decimals: int | None = None
    bfloat16: bool = False
    adds: tuple[int, ...] = ()  # tokens before each prompt
    hides_added: bool = False  # and says nothing of them
    cuts: int | None = None  # tokens that it reads of a prompt, without a word
    read_as: float = 0.0  # nats, beside what it says of the same tokens as it writes them
    drops: int = 0  # tokens from the beginning of each prompt
    words: Callable[[str], str] = str  # what it calls tokens
    most_likely_only: bool = False  # gives the best token's log-probability in place of the one that was sent
    ranks: bool = True  # says which rank a token of a prompt has
    tops: bool = True  # says which tokens are the most likely ones
    calls_first: bool | None = None  # whether it says of every token of a prompt that it is the most likely one; None: as it is
    noise: float = 0.0  # nats, anew for each answer
    statuses: list[int] = field(default_factory=list)  # of the next answers
    body: bytes | None = None  # in place of JSON
    key: str | None = None
    quotes: str = ""  # in its refusals
    delay: float = 0.0  # seconds
    dies_after: int | None = None  # completions; then connections are closed without an answer
    changes_after: int | None = None  # completions; then another model answers
    # what was asked
    requests: list[dict] = field(default_factory=list)
    scored: list[tuple[int, ...]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0


@contextmanager
def serve_completions(**settings):
    """Yield a running server, whose `url` ends in /v1."""
    served = ServedCompletions(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": served, "lock": threading.Lock()}))
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=MOST)


class _Handler(BaseHTTPRequestHandler):
    served: ServedCompletions
    lock: threading.Lock
    protocol_version = "HTTP/1.1"
    timeout = MOST

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/v1/models" and self.served.lists_models:
            model = {"object": "model", "max_model_len": self.served.context, **self.served.stated}
            listed = [{"id": name, **model} for name in self.served.names]
            return self._answer({"object": "list", "data": listed})
        return self._answer({"detail": "Not Found"}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.served.requests.append(body)
            number = len(self.served.requests)
            self.served.at_once += 1
            self.served.most_at_once = max(self.served.most_at_once, self.served.at_once)
        try:
            if self.served.dies_after is not None and number > self.served.dies_after:
                self.close_connection = True
                return None
            time.sleep(self.served.delay)
            if self.path != "/v1/completions":
                return self._answer({"detail": "Not Found"}, 404)
            return self._complete(body, number)
        finally:
            with self.lock:
                self.served.at_once -= 1

    def _complete(self, body: dict, number: int):
        served = self.served
        longest = max(map(len, body["prompt"])) + body["max_tokens"]
        if served.context and longest > served.context:
            message = f"maximum context length is {served.context} tokens, {longest} were asked for"
            return self._answer({"error": {"message": message, "type": "BadRequestError"}}, 400)
        choices = []
        for index, sent in enumerate(body["prompt"]):
            ids = [*served.adds, *sent][served.drops :][: served.cuts]
            table = served.logprobs(ids)
            if served.changes_after is not None and number > served.changes_after:
                table = np.roll(table, 1, axis=1)
            table = table + np.array([random.gauss(0, served.noise) for _ in range(len(table))])[:, None]
            choices.append({"index": index, **self._choice(body, ids, table)})
        served.scored += map(tuple, body["prompt"])
        read = sum(len(sent[: served.cuts]) for sent in body["prompt"])
        read += len(choices) * (0 if served.hides_added else len(served.adds) - served.drops)
        name = served.answers_as or body["model"]
        return self._answer({"object": "text_completion", "model": name, "choices": choices, "usage": {"prompt_tokens": read}})

    def _choice(self, body: dict, ids: list[int], table: np.ndarray) -> dict:
        """Return the answer to one prompt: entries of its tokens, and of the one that is written."""
        served = self.served
        written = int(table[-1].argmax())
        own = [None, *(float(row[token]) for row, token in zip(table[:-1], ids[1:], strict=True))]
        if served.most_likely_only:
            own = [None, *(float(row.max()) for row in table[:-1])]
        best = [None, *(int(row.argmax()) for row in table[:-1])]
        tops = [None, *(float(row.max()) for row in table[:-1])]
        ranks = [None, *(int((row > row[token]).sum()) + 1 for row, token in zip(table[:-1], ids[1:], strict=True))]
        values = [None, *(value + served.read_as for value in own[1:]), float(table[-1, written])]
        if served.shift:
            values = [*values[served.shift :], *[values[-1]] * served.shift]
            values[0] = None
        first = len(served.adds) if served.hides_added else 0
        entries = [
            (token, self._value(value, rank), rank, top_id, top)
            for token, value, rank, top_id, top in zip(ids, values, ranks, best, tops, strict=False)
        ][first:]
        choice = {"text": served.words(served.tokenizer.decode([written])), "finish_reason": "length"}
        if body.get("prompt_logprobs") is not None and "prompt_logprobs" in served.speaks:
            choice["prompt_logprobs"] = [self._ranked(*entry) for entry in entries]
            choice["token_ids"] = [written]
        echoes = body.get("echo") and "echo" in served.speaks
        if body.get("logprobs") is not None:
            last = (written, self._value(float(table[-1, written]), 1), 1, written, float(table[-1, written]))
            choice["logprobs"] = self._echoed([*entries, last] if echoes else [last])
        if body.get("return_token_ids") and "prompt_logprobs" in served.speaks:
            choice["token_ids"] = [written]
        return choice

    def _value(self, value: float | None, rank: int | None) -> float | None:
        served = self.served
        if value is None or (served.top_k is not None and rank is not None and rank > served.top_k):
            return None
        if served.floor is not None:
            value = max(value, served.floor)
        if served.decimals is not None:
            value = round(value, served.decimals)
        if served.bfloat16:
            value = float((np.array([value], np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)[0])
        return value

    def _ranked(self, token, value, rank, top_id, top):
        if rank is None and value is None:
            return None
        word = lambda token: self.served.words(self.served.tokenizer.decode([token]))  # noqa: E731
        rank = rank if self.served.calls_first is None else 1 if self.served.calls_first else 2
        ranks = (lambda rank: {"rank": rank}) if self.served.ranks else (lambda _: {})
        has_top = top_id is not None and self.served.tops
        entry = {str(top_id): {"logprob": top, **ranks(1), "decoded_token": word(top_id)}} if has_top else {}
        if value is not None:
            entry[str(token)] = {"logprob": value, **ranks(rank), "decoded_token": word(token)}
        return entry

    def _echoed(self, entries) -> dict:
        words = [self.served.words(self.served.tokenizer.decode([entry[0]])) for entry in entries]
        decode = self.served.tokenizer.decode
        tops = [
            None if entry[3] is None or not self.served.tops else {decode([entry[3]]): self._value(entry[4], 1)}
            for entry in entries
        ]
        return {"tokens": words, "token_logprobs": [entry[1] for entry in entries], "top_logprobs": tops, "text_offset": []}

    def _answer(self, content: dict, status: int = 200) -> None:
        served = self.served
        if served.key is not None and self.headers.get("Authorization") != f"Bearer {served.key}":
            given = self.headers.get("Authorization")
            content, status = {"error": {"message": f"invalid key {given}"}}, 401
        elif served.statuses:
            status = served.statuses.pop(0)
            content = content if status == 200 else {"error": {"message": f"status {status}{served.quotes}"}}
        data = json.dumps(content).encode() if served.body is None else served.body
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if served.body is None else "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
