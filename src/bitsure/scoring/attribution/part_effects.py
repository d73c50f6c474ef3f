"""Measure which part of a model quantization harms, or take it from the store; an interrupted measurement goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bitsure.base import terminal
from bitsure.base.memo import Memo
from bitsure.base.progress import Advance, progress
from bitsure.base.store import Store
from bitsure.config.schema import AttributionSettings
from bitsure.models.facts import context_length
from bitsure.quantize.check import windows_of
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
from bitsure.quantize.plan import Plan
from bitsure.quantize.walk.mixtures import separate_experts
from bitsure.results import read, read_if_there, write
from bitsure.results.attribution import KEPT, MeasuredParts
from bitsure.scoring.attribution.asked_questions import ask
from bitsure.scoring.attribution.kept_layers import keep_layers
from bitsure.scoring.attribution.model_pair import ModelPair
from bitsure.scoring.attribution.part_passes import (
    ModelNumbers,
    check_numbers,
    divergence_from,
    log_probabilities,
    numbers_of,
    part_divergences,
    segments,
)
from bitsure.scoring.attribution.sample import QUESTION_TOKENS, Sample, choose_sample
from bitsure.scoring.local.local_engine import LocalEngine
from bitsure.scoring.scorer import Scorer
from bitsure.scoring.texts.text_scorer import TextScorer
from bitsure.scoring.texts.tokenized_text import TextWindow

FORMAT = 2  # of what the store keeps; one more whenever our code would measure something else
KIND = "attribution"  # of the store's entries
FILE = "parts.json"
TEXT_TOKENS = 512  # of a batch, which has logits of every token, of two models


@dataclass(frozen=True)
class AttributedRun:
    """What an attribution is made of.

    Attributes:
        plan: How the model was quantized.
        scorer: What scored the run's questions.
        text: What scored the run's text; None for held-out windows of the calibration text.
        settings: How much is measured.
        store: Where the result is kept.
        log_file: Where the output of libraries goes.
    """

    plan: Plan
    scorer: Scorer
    text: TextScorer | None
    settings: AttributionSettings
    store: Store
    log_file: Path

    def ensure(self, checkpoint: Callable[[], Path]) -> MeasuredParts:
        """Return the measurements, from the store if it has them; one process at a time makes them.

        Args:
            checkpoint: Returns where the quantized model lies, its files hashed; called if it has to be read.
        """
        key = self.key()
        parts = self.store.path("unfinished", key)

        def fill(entry: Path) -> None:
            write(entry / FILE, self._measure(checkpoint(), parts))

        entry = self.store.ensure(KIND, key, fill, to_read=True)
        shutil.rmtree(parts, ignore_errors=True)
        return read(entry / FILE, MeasuredParts)

    def key(self) -> dict[str, Any]:
        """Return the key of the measurements in the store: all that makes them."""
        source, task = self.plan.source, self.scorer.questions.task
        limits = {name: getattr(self.settings, name) for name in ("scorings", "tokens", "questions")}
        return {
            "format": FORMAT,
            "weights": self.plan.made_from,
            "text": self.text.text.identity(source) if self.text else "held-out",
            "tasks": {name: self.scorer.kept.questions_key(name) for name in task.names},
            "setup": self.scorer.setup.key(quantized=False),
            **limits,
        }

    def _measure(self, checkpoint: Path, parts: Path) -> MeasuredParts:
        source, setup = self.plan.source, self.scorer.setup
        unpacked = replace(setup, scoring=replace(setup.scoring, dequantize=True))
        with terminal.output_to(self.log_file):
            full, quantized = setup.load(source, None).model, unpacked.load(source, checkpoint).model
            for model in (full, quantized):
                separate_experts(model)
            contents = load_checkpoint(checkpoint, full)
            pair = ModelPair(full, quantized, contents)
            windows, name = self._windows()
            questions = ask(self.scorer.load_tasks(Memo()), source, self.scorer.questions.task)
            engine = LocalEngine(full, context_length(source.path) or QUESTION_TOKENS, setup.scoring.share)
            sample = choose_sample(pair, windows, self.text is not None, questions, engine, self.settings)
        batches = list(_batches(sample.windows))
        with (
            progress("attributing the loss to parts", 2 * len(batches) + len(sample.batches), "batches") as advance,
            terminal.output_to(self.log_file),
        ):
            saved = _SavedNumbers(parts, advance)
            on_text = [saved(f"text-{i}", partial(part_divergences, pair, batch)) for i, batch in enumerate(batches)]
            on_questions = [
                saved(f"questions-{i}", partial(log_probabilities, pair, sample.run, batch, sample.requests))
                for i, batch in enumerate(sample.batches)
            ]
            divergences = _joined(on_text)
            kept = keep_layers(pair, self.plan.quant, contents, divergences)
            for i, batch in enumerate(batches if kept else ()):
                again = partial(_kept_divergences, pair, batch)
                divergences.setdefault(KEPT, []).extend(saved(f"kept-{i}", again)[KEPT])
        of_batches = [(number, segment) for number, batch in enumerate(batches) for segment in segments(batch)]
        documents = [(segment.task, segment.document) for _, segment in of_batches]
        windows_of_segments = [(number, segment.window) for number, segment in of_batches]
        probs = _true_label_probs(sample, on_questions)
        check_numbers(probs)
        return MeasuredParts(
            text_name=name,
            windows=len(set(windows_of_segments)),
            tokens=[segment.tokens for _, segment in of_batches],
            units=_numbered(documents if len(set(documents)) > 1 else windows_of_segments),
            divergences=divergences,
            true_label_probs=probs,
            tasks=[question.task for question in sample.questions],
            clusters=[question.cluster for question in sample.questions],
            prompts=[question.prompt for question in sample.questions],
            parts=[(part.kind, part.name) for part in pair.parts],
            layers=pair.places_of_layers(),
            scorings=sample.scorings,
            kept_layers=kept,
        )

    def _windows(self) -> tuple[Sequence[TextWindow], str]:
        """Return the windows that the sample is drawn from, and what they are called."""
        if self.text is not None:
            return self.text.cut(Memo()).windows, self.text.text.task
        plan, remote_code = self.plan, self.plan.source.settings.trust_remote_code
        _, held_out = windows_of(plan.source.path, remote_code, plan.text, plan.calib, plan.nsamples)
        nothing = np.zeros(held_out.shape[1] - 1, dtype=np.int64)
        windows = [TextWindow(tokens, 1, nothing, nothing, nothing) for tokens in held_out.numpy()]
        return windows, f"held-out text of {plan.text.name}"


def _batches(windows: Sequence[TextWindow]) -> Iterator[list[TextWindow]]:
    """Yield windows of one length together, as many as TEXT_TOKENS allows."""
    for length, equal in groupby(sorted(windows, key=len), key=len):
        some = list(equal)
        size = max(1, TEXT_TOKENS // length)
        yield from (some[first : first + size] for first in range(0, len(some), size))


def _numbered(names: Sequence[tuple[Any, int]]) -> list[int]:
    """Return each name's number, from 0, in the order in which they come."""
    numbers: dict[tuple[Any, int], int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _joined(batches: Sequence[ModelNumbers]) -> ModelNumbers:
    """Return each model's numbers of all batches."""
    return {model: [number for batch in batches for number in batch[model]] for model in batches[0]}


def _kept_divergences(pair: ModelPair, batch: Sequence[TextWindow]) -> ModelNumbers:
    return {KEPT: divergence_from(pair.full, batch)(pair.quantized)}


def _true_label_probs(sample: Sample, batches: Sequence[ModelNumbers]) -> ModelNumbers:
    """Return for each model the probability of each question's right choices."""
    if not batches:
        return {}
    numbers = [number for batch in sample.batches for number in numbers_of(batch)]
    probs: ModelNumbers = {}
    for model, logprobs in _joined(batches).items():
        of_request = dict(zip(numbers, logprobs, strict=True))
        in_order = iter([of_request[number] for number in range(len(numbers))])
        probs[model] = [question.true_label_prob([next(in_order) for _ in question.requests]) for question in sample.questions]
    return probs


class _SavedNumbers:
    """Keeps the numbers of each batch in a file, so that a killed process loses one batch at most.

    Args:
        folder: Where the files are.
        advance: Counts a batch as done.
    """

    def __init__(self, folder: Path, advance: Advance) -> None:
        self._folder, self._advance = folder, advance

    def __call__(self, name: str, measure: Callable[[], ModelNumbers]) -> ModelNumbers:
        """Return what an interrupted process measured, or measure it now."""
        file = self._folder / f"{name}.json"
        numbers = read_if_there(file, ModelNumbers)
        if numbers is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            numbers = measure()
            check_numbers(numbers)
            write(file, numbers)
        self._advance(1)
        return numbers
