"""Low-rank tuning of a block (QLLM, Liu et al. 2024, section 4.2): it lowers the error of the rounded block's output.

Unlike the paper's, the low-rank part is rounded with the weight while it is learned, as it is when it is stored, and each
block is tuned by itself.
"""

from __future__ import annotations

import zlib

import torch
from torch import nn
from torch.nn.utils import parametrize

from bitsure.base.errors import UserError
from bitsure.config.quantizers import Rounded, Tuning
from bitsure.quantize.native.rounding import round_to_nearest
from bitsure.quantize.walk.blocks import Feed
from bitsure.quantize.walk.targets import linears, matrix
from bitsure.quantize.weights.fake_quantize import straight_through


class LowRank(nn.Module):
    """Q(W + BA) of a weight as a layer keeps it; gradients pass Q straight through."""

    def __init__(self, layer: nn.Module, quant: Rounded, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.quant, self.transposed = quant, not isinstance(layer, nn.Linear)
        weight = matrix(layer)
        rows, columns = weight.shape
        initial = torch.randn(rank, columns, generator=generator) / columns**0.5
        self.A = nn.Parameter(initial.to(weight.device))
        self.B = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        self.rounds = True

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with its change, rounded while `rounds` is set."""
        whole = (weight.T if self.transposed else weight).float() + self.B @ self.A
        if self.rounds:
            whole = straight_through(whole, round_to_nearest(whole, self.quant).dequantize())
        return (whole.T if self.transposed else whole).to(weight.dtype)


def tune(block: nn.Module, prefix: str, feed: Feed, exact: list[torch.Tensor], quant: Rounded, tuning: Tuning) -> float:
    """Change the weights W of a block's linear layers into W + BA, not yet rounded.

    A and B are learned with AdamW, at a rate that falls to 0, so that the block's output with rounded weights and inputs, on
    the hidden states of the quantized model, comes near to that of the full-precision model. One step sees one of the walk's
    batches, at most 2,048 tokens, as many as a sequence of the paper. If the error does not fall, W stays.

    Args:
        block: The block; its inputs are rounded already.
        prefix: Its name in the model, from which A is drawn too.
        feed: Runs the calibration text through it.
        exact: Its outputs in the full-precision model, by batch.
        quant: The number format of the weights.
        tuning: Rank, epochs, learning rate and seed.

    Returns:
        The root mean square error after tuning, divided by that before; 1 if W stays.

    Raises:
        UserError: If the error is NaN or infinite after tuning.
    """
    feed.replay.forget()  # The outputs it keeps have no gradient.
    block.requires_grad_(False)
    generator = torch.Generator().manual_seed(tuning.seed + zlib.crc32(prefix.encode()))
    # A pruned layer stays zero.
    layers = [layer for layer in linears(block).values() if matrix(layer).any()]
    if not layers:
        return 1.0
    low_rank = {layer: LowRank(layer, quant, tuning.rank or 0, generator) for layer in layers}
    for layer, change in low_rank.items():
        parametrize.register_parametrization(layer, "weight", change)
    before = _error(feed, exact)
    with torch.enable_grad():
        _learn([parameter for change in low_rank.values() for parameter in change.parameters()], feed, exact, tuning, generator)
    after = _error(feed, exact)
    if not after < torch.inf:
        raise UserError(f"quant.tuning: {prefix} gives NaN or infinite values after tuning. Lower quant.tuning.lr.")
    for layer, change in low_rank.items():
        change.rounds = False
        if after >= before:
            change.B.data.zero_()
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return (after / before) ** 0.5 if after < before else 1.0


def _learn(
    parameters: list[nn.Parameter], feed: Feed, exact: list[torch.Tensor], tuning: Tuning, generator: torch.Generator
) -> None:
    """Learn the low-rank matrices."""
    optimizer = torch.optim.AdamW(parameters, lr=tuning.lr, weight_decay=0.0)
    steps = tuning.epochs * len(feed.batches)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(tuning.epochs):
        for i in torch.randperm(len(feed.batches), generator=generator).tolist():
            optimizer.zero_grad()
            torch.autograd.backward(_mean_square(feed, exact, i))
            optimizer.step()
            schedule.step()


def _mean_square(feed: Feed, exact: list[torch.Tensor], i: int) -> torch.Tensor:
    return (feed.run(feed.batches[i]) - exact[i]).float().square().mean()


@torch.no_grad()
def _error(feed: Feed, exact: list[torch.Tensor]) -> float:
    return sum(_mean_square(feed, exact, i).item() for i in range(len(exact))) / len(exact)
