"""How many calibration tokens each expert of a mixture is given."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from bitsure.quantize.walk.blocks import walk
from bitsure.quantize.walk.mixtures import expert_lists
from bitsure.quantize.walk.targets import linears, matrix
from bitsure.results.experts import ExpertCalibration

log = logging.getLogger(__name__)
NAMED = 5  # experts that the warning names


@torch.no_grad()
def expert_calibration(model: nn.Module, windows: torch.Tensor, all_experts: bool) -> ExpertCalibration:
    """Count the tokens that the gates of a full-precision model route to each expert, and warn of experts with few.

    Args:
        model: The model, its experts separate.
        windows: The calibration text, token ids of shape (n, seqlen).
        all_experts: Whether each expert learns from every token all the same.
    """
    tokens: dict[str, list[int]] = {}
    widths: dict[str, int] = {}

    def count(name: str, number: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(expert: nn.Module, inputs: tuple[Any, ...]) -> None:
            tokens[name][number] += inputs[0].shape[:-1].numel()

        return hook

    with ExitStack() as stack:
        for prefix, block, _ in walk(model, windows):
            for inner, experts in expert_lists(block).items():
                name = f"{prefix}.{inner}"
                tokens[name] = [0] * len(experts)
                widths[name] = max(matrix(layer).shape[1] for layer in linears(experts).values())
                for number, expert in enumerate(experts):
                    stack.callback(expert.register_forward_pre_hook(count(name, number)).remove)
    few = {f"{name}.{number}": n for name, counts in tokens.items() for number, n in enumerate(counts) if n < widths[name]}
    if few and not all_experts:
        _warn(few, sum(map(len, tokens.values())))
    return ExpertCalibration(tokens=tokens, few=few, all_experts=all_experts)


def _warn(few: dict[str, int], experts: int) -> None:
    least = sorted(few, key=lambda name: few[name])[:NAMED]
    log.warning(
        "%d of %d experts are given fewer calibration tokens than their inputs have channels: %s%s. One without any is "
        "rounded to nearest. Give more text (calib.nsamples), or every token to every expert (calib.all_experts=true)",
        len(few),
        experts,
        ", ".join(f"{name} ({few[name]})" for name in least),
        " …" if len(few) > NAMED else "",
    )
