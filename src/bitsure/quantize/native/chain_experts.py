"""The experts of one block of a chain, each quantized by itself on the tokens that reach it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from bitsure.quantize.native.chain_block import ChainBlock
from bitsure.quantize.walk.blocks import TOKENS_AT_ONCE, Feed, runner
from bitsure.quantize.walk.expert_inputs import tokens_of_experts
from bitsure.quantize.walk.mixtures import expert_lists
from bitsure.quantize.walk.replay import Replay


def chain_experts(dense: ChainBlock) -> Iterator[ChainBlock]:
    """Yield each expert of a block, ready to be quantized; it is on the block's device until the next one is requested.

    Args:
        dense: The block's other layers, which are quantized already.
    """
    block = dense.block
    device = next(block.parameters()).device
    for name, experts in expert_lists(block).items():
        home = next(experts.parameters()).device
        tokens = tokens_of_experts(block, name, dense.feed, home)
        for number, expert in enumerate(experts):
            batches = list(torch.split(tokens.pop(0), TOKENS_AT_ONCE))  # Of what is done no memory is kept.
            expert.to(device)
            replay = Replay(expert, batches)
            try:
                expert_feed = Feed(batches, runner(expert, ((), {}), device, as_tuple=False), replay)
                yield replace(dense, prefix=f"{dense.prefix}.{name}.{number}", block=expert, feed=expert_feed, weights={})
            finally:
                replay.forget()
                expert.to(home)
