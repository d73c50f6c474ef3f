"""What quantizing each layer alone loses, in each number of bits: KL divergence from full precision on calibration text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitsure.base.errors import UserError
from bitsure.quantize.checkpoint.read_checkpoint import iterate_weights
from bitsure.quantize.checkpoint.write_checkpoint import write_part
from bitsure.quantize.inference.scheme import InferenceScheme
from bitsure.quantize.native.chain_quantizer import RoundingQuantizer
from bitsure.quantize.native.layers import quantize_layers, to_cpu
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.walk.block_outputs import BlockOutputs
from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.layer_inputs import layers_by_input, measure
from bitsure.quantize.walk.mixtures import without_number
from bitsure.quantize.walk.targets import find_blocks, linears, matrix
from bitsure.quantize.weights import Weight
from bitsure.results import read_if_there, write

SEGMENT = 128  # tokens of a window that are run
TOKENS_AT_ONCE = 512  # of a batch
ROWS_AT_ONCE = 64  # of logits as doubles

Losses = dict[str, dict[int, float]]
"""Layer → bits of a weight → mean KL(full precision ‖ the model with this layer alone in these bits), nats.

A block's experts are one layer: `*` stands for their numbers.
"""
Candidates = Mapping[int, RoundingQuantizer]
"""Bits of a weight → what rounds to them."""


@torch.no_grad()
def measure_losses(
    model: nn.Module, candidates: Candidates, windows: torch.Tensor, tokens: int, parts: Path, advance: Callable[..., None]
) -> Losses:
    """Return what each layer loses alone in each of the candidates' bits.

    What comes before a layer's block is computed once for all.

    Args:
        model: In full precision, on the CPU; it is the same afterwards.
        candidates: What is tried.
        windows: Calibration text as token ids, shape (nsamples, seqlen).
        tokens: How many tokens of it the divergences are means over, at most.
        parts: A directory for what is done, so that an interrupted measurement goes on.
        advance: Called after each block, as `QuantizationJob.advance`.
    """
    rounded = _rounded_with_data if any(quant.needs_data for quant in candidates.values()) else _rounded_to_nearest
    prefix, blocks = find_blocks(model)
    parts.mkdir(parents=True, exist_ok=True)
    files = [parts / f"{number}.json" for number in range(len(blocks))]
    measured = [read_if_there(file, Losses) for file in files]
    if not all(measured):
        weights = rounded(model, candidates, windows, parts)
        home, fast = next(model.parameters()).device, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model.to(fast)
        batches = _batches(model, blocks, windows, tokens)
        for number, file in enumerate(files):
            if not measured[number]:
                name = f"{prefix}.{number}"
                of_bits = {bits: weights(name, bits) for bits in candidates}
                measured[number] = _losses_of_block(name, blocks[number], of_bits, partial(_divergence, model, number, batches))
                write(file, measured[number])
            advance(1, total=len(blocks), note=f"{prefix}.{number}: what its layers lose", unit="blocks")
        model.to(home)
        advance(-len(blocks))  # They are gone through once more, to be rounded.
    return {layer: losses for of_block in measured for layer, losses in (of_block or {}).items()}


RoundedWeights = Callable[[str, int], Mapping[str, Weight]]
"""Takes a block's name and bits, and returns its layers' rounded weights by full name."""


def _rounded_to_nearest(model: nn.Module, candidates: Candidates, windows: torch.Tensor, parts: Path) -> RoundedWeights:
    def weights(block: str, bits: int) -> Mapping[str, Weight]:
        layers = linears(model.get_submodule(block))
        return {f"{block}.{name}": round_to_nearest(matrix(layer), candidates[bits]) for name, layer in layers.items()}

    return weights


def _rounded_with_data(model: nn.Module, candidates: Candidates, windows: torch.Tensor, parts: Path) -> RoundedWeights:
    """Round every layer with what it reads in full precision, and keep the weights on disk."""

    def place(block: str, bits: int) -> Path:
        return parts / f"{block}-{bits}"

    known: dict[str, list[list[str]]] = {}
    means = any("scale" in quant.transforms for quant in candidates.values())
    for prefix, block, feed in walk(model, windows):
        missing = [bits for bits in candidates if not place(prefix, bits).is_dir()]
        if not missing:
            continue
        groups = layers_by_input(block, feed, known)
        statistics = measure(groups, feed, means)
        for bits in missing:
            weights: dict[str, Weight] = {}
            for group, inputs in zip(groups, statistics, strict=True):
                for name, layer in group.items():
                    full_name = f"{prefix}.{name}"
                    rounded, _ = quantize_layers({full_name: matrix(layer)}, inputs, candidates[bits], full_name)
                    weights[full_name] = to_cpu(rounded[full_name])
            for name, layer in linears(block).items():  # Experts, which not every token reaches, are rounded to nearest.
                if (full_name := f"{prefix}.{name}") not in weights:
                    weights[full_name] = to_cpu(round_to_nearest(matrix(layer), candidates[bits]))
            write_part(place(prefix, bits), weights, InferenceScheme())
    return lambda block, bits: dict(iterate_weights(place(block, bits))[1])


@dataclass(frozen=True)
class _Batch:
    """Windows that full precision has run."""

    ids: torch.Tensor
    """(windows, tokens)."""
    outputs: BlockOutputs
    """What its blocks returned."""
    logits: torch.Tensor
    """Its logits after each token but the last, (n, vocabulary)."""


def _batches(model: Any, blocks: nn.ModuleList, windows: torch.Tensor, tokens: int) -> list[_Batch]:
    length = min(SEGMENT, windows.shape[1])
    some = windows[:: max(1, len(windows) * length // tokens), :length][: max(1, tokens // length)]
    batches = []
    for ids in torch.split(some, max(1, TOKENS_AT_ONCE // length)):
        outputs = BlockOutputs(blocks)
        with outputs.kept():
            batches.append(_Batch(ids, outputs, _logits(model, ids)))
    return batches


def _losses_of_block(
    prefix: str, block: nn.Module, weights: Mapping[int, Mapping[str, Weight]], divergence: Callable[[], float]
) -> Losses:
    layers = {f"{prefix}.{name}": layer for name, layer in linears(block).items()}
    losses: Losses = {without_number(name): {} for name in layers}
    for bits, of_bits in weights.items():
        for together in losses:
            values = {name: matrix(layer) for name, layer in layers.items() if without_number(name) == together}
            originals = {name: value.clone() for name, value in values.items()}
            for name, value in values.items():
                value.copy_(of_bits[name].dequantize())
            loss = losses[together][bits] = divergence()
            if not math.isfinite(loss):
                raise UserError(
                    f"quant.candidates: {together} in {bits} bits gives probabilities that are not finite numbers, so that its "
                    f"loss is not known. Leave {bits} out, or take another model.dtype."
                )
            for name, value in values.items():
                value.copy_(originals[name])
    return losses


def _divergence(model: nn.Module, first: int, batches: Sequence[_Batch]) -> float:
    """Return the mean KL divergence over the tokens of all batches; what is before block number `first` is not run."""
    total = 0.0
    for batch in batches:
        with batch.outputs.begin_at(first):
            total += sum(_kl_divergences(batch.logits, _logits(model, batch.ids)))
    return max(total / sum(len(batch.logits) for batch in batches), 0.0)  # in this order NaN stays NaN


def _kl_divergences(full: torch.Tensor, other: torch.Tensor) -> Iterator[float]:
    """Yield sums of Σ p (ln p − ln q) over some rows of logits, nats; tokens of p = 0 (a padded vocabulary) add nothing."""
    for p, q in zip(torch.split(full, ROWS_AT_ONCE), torch.split(other, ROWS_AT_ONCE), strict=True):
        log_p, log_q = p.double().log_softmax(-1), q.double().log_softmax(-1)
        probs = log_p.exp()
        yield float((probs * (log_p - log_q)).masked_fill_(probs == 0, 0.0).sum())


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids.to(model.device), use_cache=False).logits
    return logits[:, :-1].flatten(0, 1)
