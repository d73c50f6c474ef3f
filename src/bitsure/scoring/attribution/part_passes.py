"""Passes of models of which one part is quantized, or restored: what comes before that part is computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from bitsure.base.errors import UserError
from bitsure.results.attribution import FULL, QUANTIZED, alone, restored
from bitsure.scoring.attribution.model_pair import ModelPair
from bitsure.scoring.device_copies import send
from bitsure.scoring.local.forward import ends_with_head
from bitsure.scoring.local.patches import takes_attention
from bitsure.scoring.local.rows import TreeRow
from bitsure.scoring.local.trial import RunBatch
from bitsure.scoring.requests import Requests
from bitsure.scoring.texts.head_states import whole_logits
from bitsure.scoring.texts.text_pass import inputs_of
from bitsure.scoring.texts.token_scores import TokenScores, token_scores
from bitsure.scoring.texts.tokenized_text import TextWindow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ModelNumbers = dict[str, list[float]]
"""What measurements call a model → its numbers."""


@dataclass(frozen=True)
class Segment:
    """The scored tokens of a window that are of one document."""

    window: int
    """The window's place in its batch."""
    task: str
    """The text, where one pass has several; else empty."""
    document: int
    """The document's number in the text."""
    tokens: int
    """How many they are."""


def segments(batch: Sequence[TextWindow]) -> list[Segment]:
    """Return the segments of windows, one after the other: tokens of one document are resampled together."""
    parts: list[Segment] = []
    for place, window in enumerate(batch):
        tasks = window.tasks if window.tasks is not None else np.full(len(window.documents), "")
        owners = zip(tasks.tolist(), window.documents.tolist(), strict=True)
        parts += [Segment(place, task, document, len(list(same))) for (task, document), same in groupby(owners)]
    return parts


def check_numbers(numbers: Mapping[str, Sequence[float]]) -> None:
    """Raise UserError if a model has a number that is NaN or infinite; −∞, the log-probability of what is ruled out, may be."""
    for name, values in numbers.items():
        if not all(value < math.inf for value in values):
            raise UserError(
                f"attribution.measure=true: the model '{name}' gives probabilities that are not finite numbers. Its loss is "
                "not known: leave attribution out, or take another model.dtype."
            )


def part_divergences(pair: ModelPair, batch: Sequence[TextWindow]) -> ModelNumbers:
    """Return the sum of each segment's KL divergences from full precision, for every part.

    Args:
        pair: The models.
        batch: Windows of one length.
    """
    with pair.full_outputs.kept():
        compare = divergence_from(pair.full, batch)
    with pair.quantized_outputs.kept():
        sums = {QUANTIZED: compare(pair.quantized)}
    sums |= {name: compare(model) for name, model in _models_of_parts(pair)}
    for layer in pair.layers:
        with pair.exchanged(layer) as (model, _), pair.full_outputs.begin_at(layer.first):
            sums[alone(layer.kind, layer.name)] = compare(model)
    return sums


def divergence_from(full: PreTrainedModel, batch: Sequence[TextWindow]) -> Callable[[PreTrainedModel], list[float]]:
    """Run windows through the full model; return what gives another model's sums of KL divergences by segment."""
    ids, rows = inputs_of(batch)
    logits = whole_logits(full, ids, rows)
    tokens = send(torch.from_numpy(np.concatenate([window.scored for window in batch])), logits.device)
    starts = np.cumsum([0, *(segment.tokens for segment in segments(batch)[:-1])])

    def compare(model: PreTrainedModel) -> list[float]:
        scores = TokenScores.read([token_scores(whole_logits(model, ids, rows), tokens, logits)])
        assert scores.kl_divergence is not None, "a full model stands beside it"
        sums: list[float] = np.add.reduceat(scores.kl_divergence, starts).tolist()
        return sums

    return compare


def log_probabilities(pair: ModelPair, run: RunBatch, batch: Sequence[TreeRow], requests: Requests) -> ModelNumbers:
    """Return the log-probabilities of a batch's continuations, for every part.

    Args:
        pair: The models.
        run: Runs a batch.
        batch: The batch.
        requests: Requests by number.

    Returns:
        Model → log-probabilities in the order of the batch's requests, nats.
    """

    def score(model: PreTrainedModel) -> list[float]:
        scored = run(model, batch, requests)
        return [scored[number].logprob for number in numbers_of(batch)]

    for model in (pair.full, pair.quantized):  # A trial within `kept` would leave its own outputs there.
        takes_attention(model)
        ends_with_head(model)
    with pair.full_outputs.kept():
        logprobs = {FULL: score(pair.full)}
    with pair.quantized_outputs.kept():
        logprobs[QUANTIZED] = score(pair.quantized)
    return logprobs | {name: score(model) for name, model in _models_of_parts(pair)}


def numbers_of(batch: Sequence[TreeRow]) -> list[int]:
    """Return the numbers of a batch's requests."""
    return [number for row in batch for number in row.scored]


def _models_of_parts(pair: ModelPair) -> Iterator[tuple[str, PreTrainedModel]]:
    """Yield each model of which a part is quantized or restored alone, ready to be run on the batch that was kept."""
    for part in pair.parts:
        with (
            pair.exchanged(part) as (model, other),
            pair.full_outputs.begin_at(part.first),
            pair.quantized_outputs.begin_at(part.first),
        ):
            yield alone(part.kind, part.name), model
            yield restored(part.kind, part.name), other
