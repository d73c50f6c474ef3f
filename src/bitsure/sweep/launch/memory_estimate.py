"""The most memory that a piece of work holds, bytes: Python and the libraries, weights, and what is computed beside them.

`python -m benchmarks.memory` puts these numbers beside what runs take.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bitsure.models.size import parameters_of, width_of
from bitsure.quantize.calibration.windows import HELD_OUT_WINDOWS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.plan import Plan

LIBRARIES = 600 * 2**20  # of Python and the libraries: costs.json of pocket models
QUANTIZING_LIBRARY = 160 * 2**20  # of gptqmodel, from its import on: the same
FLOAT = 4  # bytes: Hessians, and weights while they are rounded, are float32 whatever the model's type
LOGITS = 3 * 2**21 * FLOAT  # tiles of the vocabulary: logits, their exponentials, and one more in the making
STATES = 8  # of the hidden size, that a block holds of a token: its input, its norm, queries, keys, values, attention, two sums
INNER = 3  # of the feed-forward size: gate, up, and their product
ROUNDED = 4  # of the layers that are rounded together: float32, what is left of the error, codes, and the rounded weight
FACTORS = 3  # of a Hessian: itself, its factor, and the factor's inverse


def scoring_memory(model: nn.Module, dtype: torch.dtype, tokens: int, weights: int) -> int:
    """Return what scoring on a CPU takes.

    Args:
        model: The model's modules; their weights are not needed.
        dtype: The type that is computed in.
        tokens: Tokens of the largest batch.
        weights: Bytes of all weights that are in memory.
    """
    return LIBRARIES + weights + tokens * _bytes_a_token(model, dtype) + LOGITS


def quantizing_memory(model: nn.Module, plan: Plan, dtype: torch.dtype, weights: int) -> int:
    """Return what quantizing by our own quantizers takes: what is in memory anyway, one block, and the calibration text.

    Args:
        model: The model's modules; their weights are not needed.
        plan: How it is quantized.
        dtype: The type that is computed in.
        weights: Bytes of the weights that stay in memory.
    """
    from bitsure.quantize.walk.blocks import TOKENS_AT_ONCE
    from bitsure.quantize.walk.replay import KEPT
    from bitsure.quantize.walk.targets import find_blocks, linears, matrix

    block = max(find_blocks(model)[1], key=parameters_of)
    matrices = [matrix(layer) for layer in linears(block).values()]
    held = 2 * parameters_of(block) * dtype.itemsize  # as it is, and as it was, which the change is measured by
    held += ROUNDED * FLOAT * max(each.numel() for each in matrices)
    held += FLOAT * sum(each.numel() for each in matrices)  # the finished layers' codes, read back from disk
    windows, kept = max(plan.nsamples, HELD_OUT_WINDOWS), 1
    if plan.quant.needs_data:
        inputs = [each.shape[1] for each in matrices]
        held += FLOAT * (sum(size**2 for size in set(inputs)) + FACTORS * max(inputs) ** 2)
        kept += KEPT
    tokens = windows * plan.calib.seqlen
    states = kept * tokens * width_of(model) * dtype.itemsize
    return LIBRARIES + weights + held + states + min(tokens, TOKENS_AT_ONCE) * _bytes_a_token(model, dtype)


def outside_blocks(model: nn.Module) -> int:
    """Return the number of a model's parameters that stand outside its blocks."""
    from bitsure.quantize.walk.targets import find_blocks

    return parameters_of(model) - sum(map(parameters_of, find_blocks(model)[1]))


def largest_block(model: nn.Module) -> int:
    """Return the number of parameters of a model's largest block."""
    from bitsure.quantize.walk.targets import find_blocks

    return max(map(parameters_of, find_blocks(model)[1]))


def _bytes_a_token(model: nn.Module, dtype: torch.dtype) -> int:
    """Return what one token takes inside a block."""
    width = width_of(model)
    return (STATES * width + INNER * max(_widths(model), default=4 * width)) * dtype.itemsize


def _widths(model: nn.Module) -> Iterator[int]:
    """Yield the widths of the outputs of linear layers in the model's blocks."""
    from bitsure.quantize.walk.targets import block_linears, matrix

    return (matrix(layer).shape[0] for layer in block_linears(model).values())
