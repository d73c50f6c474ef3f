"""The harness's requests for answers, read as HFLM reads them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from bitsure.scoring.generation.generation_request import Generation, GenerationRequest
from bitsure.tasks.protocols import Instance

log = logging.getLogger(__name__)

OWN_DISTRIBUTION = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
OWN_DISTRIBUTION |= {"epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Settings that draw tokens from the model's own distribution, whatever the task's are and the model's defaults."""


@dataclass(frozen=True)
class AskedAnswer:
    """An answer that the harness asks for."""

    request: GenerationRequest
    prompt_tokens_cut: int
    """Tokens that the prompt lost at its beginning, because they do not fit into the context."""

    def text(self, generation: Generation, decode: Callable[[list[int]], str]) -> str:
        """Return the text of an answer, as HFLM returns it: up to its stop sequence, without special tokens."""
        text: str = postprocess_generated_text(decode(generation.tokens), stop=self.request.stop, think_end_token=None)
        return text


@dataclass(frozen=True)
class RequestReader:
    """Reads the harness's requests.

    Attributes:
        encode: Returns a prompt's token ids.
        max_length: The model's context, tokens.
        max_gen_toks: The harness's longest answer where a task sets none, tokens.
        end: The text of the model's end token, which always ends an answer.
        seed: Of the answers that are drawn.
    """

    encode: Callable[[str], list[int]]
    max_length: int
    max_gen_toks: int
    end: str | None
    seed: int

    def read(self, prompt: str, gen_kwargs: Mapping[str, Any], sample: int) -> AskedAnswer:
        """Return a request of the harness.

        A prompt and the longest answer share the context: a prompt that is too long loses its beginning. Where the longest
        answer alone would fill the context, which HFLM refuses, it gets what the prompt leaves, at least half.

        Args:
            prompt: The prompt's text.
            gen_kwargs: The task's generation_kwargs.
            sample: Which of several answers to the same prompt it is, from 0.
        """
        settings = dict(normalize_gen_kwargs(dict(gen_kwargs), self.max_gen_toks))
        stop = handle_stop_sequences(settings.pop("until", None), eos=self.end)
        longest = int(settings.pop("max_gen_toks"))
        if not settings.get("do_sample"):
            settings = {name: value for name, value in settings.items() if name != "temperature"}
        tokens = self.encode(prompt)
        room = self.max_length - longest
        if room <= 0:
            room = self.max_length - self.max_length // 2
        kept = tokens[-room:]
        if "max_length" in settings:
            longest = max(1, int(settings.pop("max_length")) - len(kept))
        new = min(longest, self.max_length - len(kept))
        seed = _seed(self.seed, prompt, sample) if settings.get("do_sample") else 0
        return AskedAnswer(GenerationRequest(kept, new, stop, settings, seed), len(tokens) - len(kept))

    def read_all(self, instances: Sequence[Instance], samples: int) -> list[tuple[Instance, AskedAnswer]]:
        """Return each of the harness's requests, and then those for further answers, drawn from the model's own distribution.

        Args:
            instances: The harness's requests, of which several may be for answers to one question.
            samples: How many further answers each question gets.
        """
        times: dict[tuple[str, int], int] = {}  # question → how often it was asked so far
        asked, drawn = [], []
        for instance in instances:
            place, (prompt, gen_kwargs) = (instance.task_name, instance.doc_id), instance.args[:2]
            asked.append((instance, self.read(prompt, gen_kwargs, times.setdefault(place, 0))))
            times[place] += 1
        for instance in {(instance.task_name, instance.doc_id): instance for instance in instances}.values():
            prompt, gen_kwargs = instance.args[:2]
            first = times[instance.task_name, instance.doc_id]
            own = {**gen_kwargs, **OWN_DISTRIBUTION}
            drawn += [(instance, self.read(prompt, own, sample)) for sample in range(first, first + samples)]
        if cut := [instance for instance, answer in asked if answer.prompt_tokens_cut]:
            log.warning(
                "%d of %d prompts, the first of them %s, left no room for answers in the context and lost their beginning",
                len(cut),
                len(asked),
                place_of(cut[0]),
            )
        return asked + drawn


def place_of(instance: Instance) -> str:
    """Return what to call a request of the harness in messages."""
    return f"task {instance.task_name}, question {instance.doc_id}"


def _seed(seed: int, prompt: str, sample: int) -> int:
    """Return a seed of its own for each answer that is drawn, so that it depends on no batch."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, prompt, sample]).encode()).digest()[:7])
