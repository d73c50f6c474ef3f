"""A stand-in for the package vllm: its LLM gives log-probabilities without weights, and remembers what it was given."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from bitsure.scoring.served import vllm_program
from tests.builders.loopback_server import Logprobs, hashed_logprobs, logprobs_of
from tests.builders.tokenizers import byte_tokenizer


@dataclass
class VllmCalls:
    """What vLLM was given, and how it answers."""

    logprobs: Logprobs = hashed_logprobs
    runs_weights: bool = False  # those of the model's directory, in place of `logprobs`
    refuses: str | None = None  # every model, with these words
    writes: bytes = b""  # a process of it, before that
    stops_after: int | None = None  # calls of generate
    fails_after: int | None = None  # the same: a kernel is missing
    models: list[dict] = field(default_factory=list)
    configs: list[dict] = field(default_factory=list)  # of the models
    prompts: list[list[list[int]]] = field(default_factory=list)
    grace: list[float | None] = field(default_factory=list)  # seconds that a model was given to end, None for vLLM's own
    stops_amid_start: signal.Signals | None = None  # the signal that comes while a model is loaded; KeyboardInterrupt is caught
    stops_amid_end: signal.Signals | None = None  # the signal that comes while a model ends
    ended: int = 0  # models
    threads: set[threading.Thread] = field(default_factory=set)  # in which it was asked

    def end(self, timeout: float | None = None) -> None:
        self.grace.append(timeout)
        if self.stops_amid_end is not None:
            os.kill(os.getpid(), self.stops_amid_end)
        self.ended += 1


def install_vllm(monkeypatch, **settings) -> VllmCalls:
    """Put the stand-in in vLLM's place."""
    calls = VllmCalls(**settings)
    package = ModuleType("vllm")
    package.SamplingParams = SimpleNamespace

    class LLM:
        def __init__(self, **given):
            os.write(2, calls.writes)
            if calls.refuses:
                raise ValueError(calls.refuses)
            if calls.stops_amid_start is not None:
                with suppress(KeyboardInterrupt):
                    os.kill(os.getpid(), calls.stops_amid_start)
            calls.models.append(given)
            calls.configs.append(json.loads((Path(given["model"]) / "config.json").read_text()))
            config = SimpleNamespace(
                device_config=SimpleNamespace(device_type="cpu"),
                model_config=SimpleNamespace(dtype="torch.float32", quantization=None, enforce_eager=given["enforce_eager"]),
                cache_config=SimpleNamespace(cache_dtype="auto", enable_prefix_caching=given["enable_prefix_caching"]),
                parallel_config=SimpleNamespace(
                    tensor_parallel_size=given["tensor_parallel_size"],
                    pipeline_parallel_size=given["pipeline_parallel_size"],
                    distributed_executor_backend=given["distributed_executor_backend"],
                ),
            )
            self.llm_engine = SimpleNamespace(vllm_config=config, engine_core=SimpleNamespace(shutdown=calls.end))
            self.logprobs = _logprobs_of(given["model"]) if calls.runs_weights else calls.logprobs

        def generate(self, prompts, settings, use_tqdm):
            if calls.fails_after is not None and len(calls.prompts) >= calls.fails_after:
                raise AttributeError("no kernel cpu_gemm_wna16")
            if calls.stops_after is not None and len(calls.prompts) >= calls.stops_after:
                raise KeyboardInterrupt
            ids = [prompt["prompt_token_ids"] for prompt in prompts]
            calls.prompts.append(ids)
            calls.threads.add(threading.current_thread())
            return [_answer(prompt, self.logprobs(prompt), settings) for prompt in ids]

    package.LLM = LLM
    exceptions = ModuleType("vllm.v1.engine.exceptions")
    exceptions.EngineDeadError = type("EngineDeadError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, exceptions.__name__, exceptions)
    monkeypatch.setattr(vllm_program, "installed_version", lambda package: "0.32.0")
    return calls


def _logprobs_of(directory: str) -> Logprobs:
    from transformers import AutoModelForCausalLM

    return logprobs_of(AutoModelForCausalLM.from_pretrained(directory).eval())


_TOKENIZER = functools.cache(byte_tokenizer)


def _answer(ids: list[int], table: np.ndarray, settings) -> SimpleNamespace:
    written = int(table[-1].argmax())
    first = {written: _known(table[-1], written)}
    prompt = [
        None,
        *(
            {token: _known(row, token), best: _known(row, best)}
            for row, token in zip(table[:-1], ids[1:], strict=True)
            for best in [int(row.argmax())]
        ),
    ]
    output = SimpleNamespace(text="", token_ids=[written], logprobs=[first] if settings.logprobs is not None else None)
    known = prompt if settings.prompt_logprobs is not None else None
    return SimpleNamespace(prompt_token_ids=ids, prompt_logprobs=known, outputs=[output])


def _known(row: np.ndarray, token: int) -> SimpleNamespace:
    word = _TOKENIZER().decode([token])
    return SimpleNamespace(logprob=float(row[token]), rank=int((row > row[token]).sum()) + 1, decoded_token=word)
