"""Passes of models of which one part is quantized, or restored: what comes before that part is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from bitsure.results.attribution import FULL, QUANTIZED, alone, restored
from bitsure.scoring.attribution.model_pair import ModelPair
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


def part_divergences(pair: ModelPair, batch: Sequence[TextWindow]) -> ModelNumbers:
    """Return the sum of each window's KL divergences from full precision, for every part.

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
    """Run windows through the full model; return what gives another model's sum of KL divergences in each window."""
    ids, rows = inputs_of(batch)
    logits = whole_logits(full, ids, rows)
    tokens = torch.from_numpy(np.concatenate([window.scored for window in batch])).to(logits.device)
    starts = np.cumsum([0, *(len(window.scored) for window in batch[:-1])])

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
