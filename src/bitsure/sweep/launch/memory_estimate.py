"""The most memory that a piece of work holds, bytes: Python and the libraries, weights, and what is computed beside them.

`python -m benchmarks.memory` puts these numbers beside what runs take.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import psutil

from bitsure.base.errors import UserError
from bitsure.models.size import parameters_of, width_of
from bitsure.quantize.calibration.windows import HELD_OUT_WINDOWS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.plan import Plan

LIBRARIES = 600 * 2**20  # of Python and the libraries: costs.json of pocket models
QUANTIZING_LIBRARY = 160 * 2**20  # of gptqmodel, from its import on: the same
KEYS_VALUES = "VLLM_CPU_KVCACHE_SPACE"  # vLLM's variable: GiB for keys and values on a CPU
FLOAT = 4  # bytes: Hessians, and weights while they are rounded, are float32 whatever the model's type
LOGITS = 3 * 2**21 * FLOAT  # tiles of the vocabulary: logits, their exponentials, and one more in the making
STATES = 8  # of the hidden size, that a block holds of a token: its input, its norm, queries, keys, values, attention, two sums
INNER = 3  # of the feed-forward size: gate, up, and their product
# Hessians, and weights of the layers that are rounded together, both float32, that are held at once:
FACTORED = 3, 2  # the Hessian, its damped copy and the factor; the weights, and they as columns, or multiplied by AWQ's scales
ROUNDED = 2, 6  # the Hessian, and its factor or it by AWQ's scales; the two, units twice, zero points, and codes
WRITTEN = 2  # copies of the largest layer's codes while they are packed


def scoring_memory(model: nn.Module, dtype: torch.dtype, tokens: int, weights: int) -> int:
    """Return what scoring on a CPU takes.

    Args:
        model: The model's modules; their weights are not needed.
        dtype: The type that is computed in.
        tokens: Tokens of the largest batch.
        weights: Bytes of all weights that are in memory.
    """
    return LIBRARIES + weights + tokens * bytes_a_token(model, dtype) + LOGITS


def vllm_memory_on_cpu(memory_share: float, weights: int) -> int:
    """Return what this process and vLLM's take on a CPU.

    Args:
        memory_share: The part of main memory that vLLM takes, whose rest it fills with keys and values, unless its own variable
            says how many GiB these get.
        weights: Bytes of all weights.

    Raises:
        UserError: If vLLM's variable is no whole number.
    """
    if (given := os.environ.get(KEYS_VALUES)) is not None:
        try:
            keys_values = int(given)
        except ValueError:
            raise UserError(f"{KEYS_VALUES}={given}: vLLM reads a whole number of GiB from this variable, such as 4.") from None
        return 2 * LIBRARIES + weights + keys_values * 2**30
    return LIBRARIES + int(memory_share * psutil.virtual_memory().total)


def quantizing_memory(model: nn.Module, plan: Plan, dtype: torch.dtype, weights: int) -> int:
    """Return what quantizing by our own quantizers takes: what is in memory anyway, and what is made of one block at a time.

    Args:
        model: The model's modules; their weights are not needed.
        plan: How it is quantized.
        dtype: The type that is computed in.
        weights: Bytes of the weights that are in memory at once.
    """
    from bitsure.quantize.walk.blocks import TOKENS_AT_ONCE
    from bitsure.quantize.walk.replay import KEPT
    from bitsure.quantize.walk.targets import find_blocks, linears, matrix

    block = max(find_blocks(model)[1], key=parameters_of)
    layers = {name: matrix(layer).shape for name, layer in linears(block).items()}
    numbers, largest = sum(map(prod, layers.values())), max(map(prod, layers.values()))
    codes = FLOAT * numbers  # int32, of the block's finished layers
    state = width_of(model) * dtype.itemsize
    batch = min(max(plan.nsamples, HELD_OUT_WINDOWS) * plan.calib.seqlen, TOKENS_AT_ONCE) * bytes_a_token(model, dtype)
    own = FLOAT * numbers if dtype.itemsize < FLOAT else 0  # in float32, where they are not yet
    proof = codes + own + HELD_OUT_WINDOWS * plan.calib.seqlen * state + batch
    if not plan.quant.needs_data:
        rounding = codes + (ROUNDED[1] - 1) * FLOAT * largest  # The weights are not copied first.
        writing = 2 * codes + WRITTEN * FLOAT * largest  # They are read back.
        return LIBRARIES + weights + max(proof, rounding, writing)
    outputs = kept_outputs(block, set(linears(block).values()), rounds_inputs=plan.quant.rounded_activations is not None)
    kept = min(outputs, KEPT * width_of(model)) * dtype.itemsize
    before = dtype.itemsize * numbers  # which the change is measured by
    hessians, rounding = _hessians(layers, plan)
    held = before + codes + plan.nsamples * plan.calib.seqlen * (state + kept)
    return LIBRARIES + weights + max(proof, held + max(rounding, hessians + batch))


def _hessians(layers: Mapping[str, Sequence[int]], plan: Plan) -> tuple[int, int]:
    """Return the bytes of the Hessians that are measured in one pass, and of those and of weights while these are rounded.

    Args:
        layers: The shapes (out, in) of a block's layers. Those of one module that read the same width are taken for one that is
            rounded, which leaves out the Hessian of attention's output; experts are taken as if all were measured at once.
        plan: How they are quantized.
    """
    from bitsure.config.quantizers import Rounded

    rows: dict[tuple[str, int], int] = defaultdict(int)
    for name, (out, width) in layers.items():
        rows[name.rpartition(".")[0], width] += out
    at_once = isinstance(plan.quant, Rounded) and not plan.quant.true_sequential
    squares = [width**2 for _, width in rows]
    measured = sum(squares) if at_once else max(squares)
    rounded = [
        (measured if at_once else width**2)
        + max((hessians - 1) * width**2 + weights * out * width for hessians, weights in (FACTORED, ROUNDED))
        for (_, width), out in rows.items()
    ]
    return FLOAT * measured, FLOAT * max(rounded)


def kept_outputs(block: nn.Module, layers: Collection[nn.Module], rounds_inputs: bool) -> int:
    """Return how many numbers of a token `Replay` keeps at the most while a block's layers are rounded.

    Args:
        block: The block.
        layers: Its linear layers that are rounded.
        rounds_inputs: Whether their inputs are rounded, too.
    """
    most, outputs = _kept_inside(block, layers, rounds_inputs)
    return max(most, sum(outputs))  # At the end all parts of the block are final, and the block is not kept as a whole.


def _kept_inside(module: nn.Module, layers: Collection[nn.Module], rounds_inputs: bool) -> tuple[int, list[int]]:
    """Return the numbers that are kept at the most until a module is final, and those of the outputs of its parts.

    While layers are measured, the outputs of layers and modules before them are kept, and their input if it is rounded.
    """
    from bitsure.quantize.walk.targets import matrix

    if module in layers:
        rows, columns = matrix(module).shape
        return columns if rounds_inputs else 0, [rows]
    most, outputs = 0, list[int]()
    for child in module.children():
        inside, own = _kept_inside(child, layers, rounds_inputs)
        if own:
            most = max(most, sum(outputs) + inside)
            outputs.append(own[-1])
    return most, outputs


def outside_blocks(model: nn.Module) -> int:
    """Return the number of a model's parameters that stand outside its blocks."""
    return parameters_of(model) - sum(map(parameters_of, _blocks(model)))


def largest_block(model: nn.Module) -> int:
    """Return the number of parameters of a model's largest block; 0 if its blocks are not known."""
    return max(map(parameters_of, _blocks(model)), default=0)


def bytes_a_token(model: nn.Module, dtype: torch.dtype) -> int:
    """Return what one token takes inside a block."""
    from bitsure.quantize.walk.targets import linears, matrix

    width = width_of(model)
    widths = (matrix(layer).shape[0] for block in _blocks(model) for layer in linears(block).values())
    return (STATES * width + INNER * max(widths, default=4 * width)) * dtype.itemsize


def _blocks(model: nn.Module) -> Sequence[nn.Module]:
    """Return a model's blocks; none if they are not in one list, which a model that is scored need not have."""
    from bitsure.quantize.walk.targets import find_blocks

    try:
        return list(find_blocks(model)[1])
    except UserError:
        return []
